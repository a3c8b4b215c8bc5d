import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { dumpPath } from './fixtures.ts';
import { findPeer, isPeer, type Peer, parseRelease, releases } from './peers/peers.ts';

/** What every release knows. The machine type gives a dump its name alone: the types do not depend on it. */
const MACHINE = 'pc-q35-5.2';
/** Where Debian's QEMU looks for modules when its own folder has none of that name. */
const SYSTEM_MODULES = '/usr/lib/x86_64-linux-gnu/qemu';

/** `node conformance/record-dumps.ts [release…]`: records what the releases say of their devices' state. */
function main(names: readonly string[]): number {
  let failed = 0;
  for (const release of names.length === 0 ? releases : names.map(parseRelease)) {
    const peer = findPeer(release);
    if (!isPeer(peer)) {
      console.error(`QEMU ${release}: ${peer.missing}`);
      failed++;
      continue;
    }
    const text = JSON.stringify(dumpOf(peer));
    const path = dumpPath(release, MACHINE);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, gzipSync(text, { level: 9 }));
    console.log(`${release} (${peer.version}): ${text.length} characters`);
  }
  return failed === 0 ? 0 : 1;
}

function dumpOf(peer: Peer): object {
  const directory = mkdtempSync(join(tmpdir(), 'wherry-dump-'));
  try {
    const dump = join(directory, 'dump.json');
    const { file, argv, env } = peer.command(['-M', MACHINE, '-nodefaults', '-dump-vmstate', dump]);
    const modules = env['QEMU_MODULE_DIR'];
    const run = spawnSync(file, argv, {
      encoding: 'utf8',
      env: {
        ...process.env,
        ...env,
        ...(modules && { QEMU_MODULE_DIR: modulesOf(modules, join(directory, 'modules')) }),
      },
      timeout: 60_000,
    });
    if (run.status !== 0) throw new Error(`QEMU ${peer.version}: ${run.stderr.trim()}`);
    return JSON.parse(readFileSync(dump, 'utf8')) as object;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Makes a folder of modules that hides this machine's: a dump loads all that there are, and one of
 * another build ends it. An empty file of the same name is passed over with a warning.
 */
function modulesOf(own: string, directory: string): string {
  mkdirSync(directory);
  const names = existsSync(own) ? readdirSync(own) : [];
  for (const name of names) symlinkSync(join(own, name), join(directory, name));
  if (existsSync(SYSTEM_MODULES)) {
    for (const name of readdirSync(SYSTEM_MODULES)) {
      if (!names.includes(name)) writeFileSync(join(directory, name), '');
    }
  }
  return directory;
}

process.exitCode = main(process.argv.slice(2));
