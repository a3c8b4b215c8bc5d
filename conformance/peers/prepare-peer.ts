import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { aptProxyEnvironment, machineMirror } from './debian-mirror.ts';
import {
  findPeer,
  inRoot,
  isPeer,
  type MissingPeer,
  type Peer,
  peersDirectory,
  type Release,
  rootDirectory,
  suiteOf,
  tryPeer,
} from './peers.ts';

/**
 * Makes a release runnable on this machine if it is not yet, and returns it, or why it could not.
 *
 * 7.2 comes from this machine's own packages where this machine has it; every other release is
 * installed into a root of its own. A root is built aside under a lock and renamed into place when
 * its QEMU has said its version, so an interrupted run leaves nothing that counts as ready, and two
 * runs at once build it once.
 */
export async function preparePeer(
  release: Release,
  log: (line: string) => void,
): Promise<Peer | MissingPeer> {
  const present = findPeer(release);
  if (isPeer(present) || present.named) return present;
  const obstacle = findObstacle();
  if (obstacle !== undefined) return { release, missing: `${present.missing} (${obstacle})` };

  const directory = peersDirectory();
  mkdirSync(directory, { recursive: true });
  const unlock = await lock(join(directory, 'lock'));
  try {
    const meanwhile = findPeer(release); // another process may just have finished it
    if (isPeer(meanwhile)) return meanwhile;
    if (release === '7.2' && readFileSync('/etc/os-release', 'utf8').includes('bookworm')) {
      log(`QEMU ${release}: installing this machine's package`);
      await install(['qemu-system-x86']);
      return findPeer(release);
    }
    log(`QEMU ${release}: building a root of Debian ${suiteOf[release]}`);
    return await buildRoot(release);
  } catch (error) {
    return { release, missing: error instanceof Error ? error.message : String(error) };
  } finally {
    await unlock();
  }
}

function findObstacle(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'needs Linux on x86-64';
  if (process.getuid?.() !== 0) return 'preparing it needs root';
  if (!existsSync('/usr/bin/apt-get')) return 'preparing it needs apt';
  return undefined;
}

async function buildRoot(release: Release): Promise<Peer | MissingPeer> {
  const needed = ['/usr/sbin/debootstrap', '/usr/share/keyrings/debian-archive-keyring.gpg'];
  if (!needed.every((path) => existsSync(path))) {
    await install(['debootstrap', 'debian-archive-keyring']);
  }
  const finished = rootDirectory(release);
  sweepUnfinished();
  // Named by process: what a killed run started may still be writing into its own.
  const building = `${finished}.building-${process.pid}`;
  rmSync(finished, { recursive: true, force: true }); // there, but its QEMU does not run
  try {
    await installRoot(suiteOf[release], building);
    const peer = tryPeer(release, 'root', inRoot(building));
    if (!isPeer(peer)) {
      return { release, missing: `Debian ${suiteOf[release]} no longer has it: ${peer.missing}` };
    }
    renameSync(building, finished);
    return findPeer(release);
  } finally {
    rmSync(building, { recursive: true, force: true });
  }
}

async function installRoot(suite: string, root: string): Promise<void> {
  const mirror = machineMirror();
  // debootstrap mounts /proc in the root: in a mount namespace of its own, so that it cannot stay.
  const isolate = ['unshare', '--mount', '--propagation', 'private'];
  const source = mirror === undefined ? [] : [mirror];
  await run([...isolate, 'debootstrap', '--variant=minbase', suite, root, ...source]);
  // A mirror that lags behind serves sid's index after its week of validity; it is signed as ever.
  const apt = [...isolate, 'chroot', root, 'apt-get', '-o', 'Acquire::Check-Valid-Until=false'];
  await run([...apt, 'update']);
  await run([...apt, 'install', '-y', '--no-install-recommends', 'qemu-system-x86']);
  await run([...apt, 'clean']);
}

/** Removes what interrupted runs have left, as far as it lets itself be removed. */
function sweepUnfinished(): void {
  for (const name of readdirSync(peersDirectory())) {
    if (!name.includes('.building-')) continue;
    try {
      rmSync(join(peersDirectory(), name), { recursive: true, force: true });
    } catch {
      // still being written; a later run removes it
    }
  }
}

async function install(packages: readonly string[]): Promise<void> {
  await run(['apt-get', 'update']);
  await run(['apt-get', 'install', '-y', '--no-install-recommends', ...packages]);
}

/** Runs a program to its end. @throws Error with the last lines of its output if it fails */
async function run(command: readonly string[]): Promise<void> {
  const [file, ...argv] = command;
  const env = {
    ...process.env,
    ...aptProxyEnvironment(),
    DEBIAN_FRONTEND: 'noninteractive',
    LC_ALL: 'C.UTF-8',
    PATH: `${process.env['PATH']}:/usr/sbin:/sbin:/usr/bin:/bin`,
  };
  const child = spawn(file!, argv, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-4000);
    });
  }
  const code = await exitOf(child);
  if (code !== 0) {
    const last = output.trim().split('\n').slice(-4).join(' | ');
    throw new Error(`"${command.join(' ')}" ended with ${code}: ${last}`);
  }
}

/**
 * Takes an exclusive file lock, waiting for it.
 *
 * The lock belongs to a `flock` process that ends when its input does: when this process gives the
 * lock back, or dies.
 */
async function lock(path: string): Promise<() => Promise<void>> {
  const holder = spawn('flock', [path, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = exitOf(holder);
  const first = await Promise.race([once(holder.stdout, 'data'), ended]);
  if (!Array.isArray(first)) throw new Error(`flock ${path} ended with ${first}`);
  return async () => {
    holder.stdin.end();
    await ended;
  };
}

async function exitOf(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
}
