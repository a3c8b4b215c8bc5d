import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A QEMU release that the suite knows by name. */
export type Release = '5.2' | '7.2' | '10.0' | '11.1';

/** Every release, oldest first. */
export const releases: readonly Release[] = ['5.2', '7.2', '10.0', '11.1'];

/** A kind of guest; `findPeer` finds an x86-64 one unless told. */
export type Target = 'x86_64' | 's390x' | 'ppc64' | 'aarch64' | 'arm' | 'riscv64';

/** The Debian suite that holds a release. */
export const suiteOf: Readonly<Record<Release, string>> = {
  '5.2': 'bullseye',
  '7.2': 'bookworm',
  '10.0': 'trixie',
  '11.1': 'sid',
};

/** What to spawn: `spawn(file, argv, { env: { ...process.env, ...env } })`. */
export interface PeerCommand {
  readonly file: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** A QEMU that runs on this machine. */
export interface Peer {
  readonly release: Release;
  /** The full version, such as `11.1.3`. */
  readonly version: string;
  /** Where it was found: an environment variable, this machine's package, or a Debian root. */
  readonly origin: 'environment' | 'machine' | 'root';
  /** Says how to start it with these QEMU arguments. */
  command(args: readonly string[]): PeerCommand;
}

/** Why a release cannot be used here, and what to do. */
export interface MissingPeer {
  readonly release: Release;
  readonly missing: string;
  /** Set when the environment names a binary that does not do: then nothing is prepared instead. */
  readonly named?: true;
}

/** Tells a found peer from a missing one. */
export function isPeer(found: Peer | MissingPeer): found is Peer {
  return !('missing' in found);
}

/** Takes a release's name from a command line or a file. @throws RangeError for an unknown one */
export function parseRelease(text: string): Release {
  const release = releases.find((known) => known === text);
  if (release === undefined) {
    throw new RangeError(`unknown QEMU release ${text}; known: ${releases.join(', ')}`);
  }
  return release;
}

/** Names the environment variable that overrides where a release's binary is. */
function environmentVariableOf(release: Release, target: Target): string {
  const suffix = target === 'x86_64' ? '' : `_${target.toUpperCase()}`;
  return `WHERRY_QEMU_${release.replace('.', '_')}${suffix}`;
}

/** Returns the folder that holds the prepared roots: outside the repository, kept between runs. */
export function peersDirectory(): string {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return process.env['WHERRY_PEERS'] || join(cache, 'wherry', 'peers');
}

/** Returns the folder of a release's prepared Debian root; it exists only when it is complete. */
export function rootDirectory(release: Release): string {
  return join(peersDirectory(), `qemu-${release}`);
}

const found = new Map<string, Peer | MissingPeer>();

/**
 * Finds a release: first the binary that the environment names, then this machine's own QEMU if it
 * is of that release, then a prepared root.
 */
export function findPeer(release: Release, target: Target = 'x86_64'): Peer | MissingPeer {
  const named = process.env[environmentVariableOf(release, target)];
  const key = [release, target, named, rootDirectory(release)].join();
  const known = found.get(key);
  if (known !== undefined && isPeer(known)) return known;
  const result = lookForPeer(release, target);
  found.set(key, result);
  return result;
}

function lookForPeer(release: Release, target: Target): Peer | MissingPeer {
  const variable = environmentVariableOf(release, target);
  const named = process.env[variable];
  if (named) {
    const peer = tryPeer(release, 'environment', direct(named));
    return isPeer(peer) ? peer : { release, missing: `${variable}: ${peer.missing}`, named: true };
  }
  const installed = tryPeer(release, 'machine', direct(`qemu-system-${target}`));
  if (isPeer(installed)) return installed;
  const root = rootDirectory(release);
  if (existsSync(root)) {
    const peer = tryPeer(release, 'root', inRoot(root, target));
    if (isPeer(peer)) return peer;
    return { release, missing: `the prepared root does not work (${peer.missing}); delete it` };
  }
  return {
    release,
    missing: `not prepared: run "node conformance/peers/prepare.ts ${release}" or set ${variable}`,
  };
}

/** Checks the binary's version by running it. */
export function tryPeer(
  release: Release,
  origin: Peer['origin'],
  command: Peer['command'],
): Peer | MissingPeer {
  const { file, argv, env } = command(['--version']);
  const run = spawnSync(file, argv, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 20_000,
  });
  const version = /^QEMU emulator version (\d+\.\d+\S*)/m.exec(run.stdout ?? '')?.[1];
  if (version === undefined) {
    const cause = run.error?.message ?? run.stderr.trim().split('\n')[0];
    return { release, missing: `no QEMU there: ${cause || `exit code ${run.status}`}` };
  }
  if (version !== release && !version.startsWith(`${release}.`)) {
    return { release, missing: `it is QEMU ${version}` };
  }
  return { release, version, origin, command };
}

function direct(file: string): Peer['command'] {
  return (args) => ({ file, argv: args, env: {} });
}

/**
 * Runs a root's QEMU with the root's own dynamic loader and libraries: no chroot and no mount, so it
 * sees this machine's files, needs no privilege, and leaves nothing behind.
 */
export function inRoot(root: string, target: Target = 'x86_64'): Peer['command'] {
  const libraries = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu', 'usr/lib'];
  const data = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'];
  return (args) => ({
    file: join(root, 'lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'),
    argv: [
      '--library-path',
      libraries.map((path) => join(root, path)).join(':'),
      join(root, `usr/bin/qemu-system-${target}`),
      ...data.flatMap((path) => ['-L', join(root, path)]),
      ...args,
    ],
    env: { QEMU_MODULE_DIR: join(root, 'usr/lib/x86_64-linux-gnu/qemu') },
  });
}
