import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { QmpClient } from '@wherry/qmp';
import { connectQmpSocket } from '../../conformance/qmp-socket.ts';
import type { Content, Guest, Host } from './migration-run.ts';

const MAIN = fileURLToPath(new URL('../../apps/wherry/dist/main.js', import.meta.url));
const START_MS = 60_000;
const CHECKSUM_MS = 60_000;

const FILL: Readonly<Record<Content, number>> = { random: 1, zero: 0, mixed: 0.1 };

/**
 * Starts a `wherry host` process with a guest of one RAM block.
 *
 * Random pages are all but the first MiB, which is firmware's. An idle guest has a device with
 * a buffer of 1 MiB.
 * @param incoming whether it waits for a migration; its memory is then untouched, unless preallocated
 */
export async function startWherryHost(
  { content, ramBytes, idle = false, preallocated = false }: Guest,
  incoming: boolean,
): Promise<Host> {
  const directory = await mkdtemp(join(tmpdir(), 'wherry-bench-'));
  const socket = join(directory, 'qmp');
  const child = spawn(
    process.execPath,
    [
      ...[MAIN, 'host', '--qmp', `unix:${socket}`, '--ram', `pc.ram=${ramBytes}`],
      ...['--vcpu', 'idle', '--fill', `${FILL[content]}`],
      ...(idle ? ['--device', 'wherry-testdev,state=1M'] : ['--paused']),
      ...(incoming ? ['--incoming', 'defer'] : []),
      ...(incoming && preallocated ? ['--mem-prealloc'] : []),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exited = new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  });
  const end = async (): Promise<void> => {
    child.kill('SIGTERM');
    await exited;
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await ready(child);
    const qmp = await QmpClient.connect(await connectQmpSocket(socket));
    const close = (): Promise<void> => {
      qmp.close();
      return end();
    };
    return { qmp, pid: child.pid, close };
  } catch (error) {
    await end();
    throw error;
  }
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = '';
    const fail = (why: string): void => reject(new Error(`wherry host did not start: ${why}`));
    const timer = setTimeout(() => fail(`not ready within ${START_MS} ms`), START_MS);
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (!text.includes('ready')) return;
      clearTimeout(timer);
      resolve();
    });
    child.once('error', (error) => fail(error.message));
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      fail(`it ended with ${code ?? signal}; is it built? Run npm run build`);
    });
  });
}

/** Compares the RAM of both sides after a migration. @throws Error when it differs */
export async function checkHandover(source: Host, destination: Host): Promise<void> {
  const ask = async (host: Host): Promise<string> => {
    const reply = await host.qmp.execute('x-wherry-handover', {}, { timeoutMs: CHECKSUM_MS });
    const { blocks } = reply as { blocks: { name: string; checksum: string; compared: number }[] };
    return blocks.map(({ name, checksum, compared }) => `${name} ${compared} ${checksum}`).join();
  };
  const [there, here] = [await ask(destination), await ask(source)];
  if (there !== here) throw new Error(`RAM differs: ${here} at the source, ${there} there`);
}
