import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One archive of an apt configuration. */
export interface AptSource {
  readonly uri: string;
  readonly suites: readonly string[];
}

/**
 * Returns this machine's Debian mirror, the archive from which its own suite comes, or undefined on
 * a machine that is no Debian or names no mirror that debootstrap can read.
 */
export function machineMirror(): string | undefined {
  const release = readOsRelease();
  if (release.get('ID') !== 'debian') return undefined;
  const codename = release.get('VERSION_CODENAME');
  const sources = aptSources().filter(({ uri }) => /^(https?|file):/.test(uri));
  const own = sources.find(({ suites }) => suites.some((s) => s === codename || s === 'sid'));
  return own?.uri;
}

/** Returns the proxy variables that apt's configuration implies, for tools that read no apt.conf. */
export function aptProxyEnvironment(): Record<string, string> {
  const run = spawnSync('apt-config', ['dump'], { encoding: 'utf8' });
  const environment: Record<string, string> = {};
  for (const scheme of ['http', 'https']) {
    const line = new RegExp(`^Acquire::${scheme}::Proxy "([^"]+)";`, 'im').exec(run.stdout ?? '');
    const proxy = line?.[1];
    if (proxy !== undefined) environment[`${scheme}_proxy`] = proxy === 'DIRECT' ? '' : proxy;
  }
  return environment;
}

function readOsRelease(): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of readText('/etc/os-release').split('\n')) {
    const match = /^(\w+)="?([^"]*)"?$/.exec(line);
    if (match?.[1] !== undefined) fields.set(match[1], match[2] ?? '');
  }
  return fields;
}

function aptSources(): AptSource[] {
  const directory = '/etc/apt/sources.list.d';
  const sources = parseSourcesList(readText('/etc/apt/sources.list'));
  for (const name of listNames(directory)) {
    const text = readText(join(directory, name));
    if (name.endsWith('.list')) sources.push(...parseSourcesList(text));
    else if (name.endsWith('.sources')) sources.push(...parseDeb822(text));
  }
  return sources;
}

/** Reads one-line entries (`deb [options] uri suite component…`). @see sources.list(5) */
export function parseSourcesList(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)/.exec(line);
    if (match?.[1] && match[2]) sources.push({ uri: match[1], suites: [match[2]] });
  }
  return sources;
}

/** Reads deb822 stanzas (`Types:`, `URIs:`, `Suites:`…). @see sources.list(5) */
export function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const stanza of text.replaceAll(/^#.*\n?/gm, '').split(/\n[ \t]*\n/)) {
    const field = (name: string): string[] => {
      const match = new RegExp(`^${name}:(.*(?:\\n[ \\t].*)*)`, 'im').exec(stanza);
      return match?.[1]?.split(/\s+/).filter((word) => word !== '') ?? [];
    };
    if (!field('Types').includes('deb') || field('Enabled')[0] === 'no') continue;
    for (const uri of field('URIs')) sources.push({ uri, suites: field('Suites') });
  }
  return sources;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function listNames(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return [];
  }
}
