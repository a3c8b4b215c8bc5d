import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { QmpClient } from '@wherry/qmp';
import { expect } from 'vitest';
import type { HostSchema } from '../src/host/host-schema.ts';
import { openQmpChannel } from '../src/qmp-socket.ts';

/** The built command. */
export const MAIN: string = fileURLToPath(new URL('../dist/main.js', import.meta.url));
const QUIT_MS = 5000;

/** A small guest of both page sizes: 16 MiB and 8 MiB. */
export const SMALL_GUEST: readonly string[] = [
  '--ram',
  'pc.ram=16M',
  '--ram',
  'hugemem=8M,page=2M',
];
/** One vCPU that dirties little, so that precopy converges at any bandwidth. */
export const CALM: readonly string[] = [...SMALL_GUEST, '--vcpu', 'random,rate=300'];

/** How a command ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A `wherry` command that runs. */
export class WherryProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';

  constructor(args: readonly string[]) {
    if (!existsSync(MAIN)) throw new Error('apps/wherry is not built: npm run build');
    this.child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1' },
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) =>
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr }),
      );
    });
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Ends it by its id, kindly first. */
  async end(): Promise<Ended> {
    if (this.isRunning) this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), QUIT_MS);
    const ended = await this.ended;
    clearTimeout(timer);
    return ended;
  }
}

/** A `wherry host` that is ready, and a QMP client of it. */
export interface RunningHost {
  readonly process: WherryProcess;
  /** Its QMP address. */
  readonly qmp: string;
  readonly path: string;
  readonly client: QmpClient<HostSchema>;
  /** Events as they came: `RESUME`, `MIGRATION active`, `MIGRATION_PASS 2`. */
  readonly events: readonly string[];
}

/** A test's processes and its folder for sockets; `close` ends and removes them. */
export class Lab {
  readonly #processes: WherryProcess[] = [];
  readonly #clients: QmpClient<HostSchema>[] = [];
  #directory: Promise<string> | undefined;
  #names = 0;

  /** A fresh path in the folder. */
  async path(name: string): Promise<string> {
    this.#directory ??= mkdtemp(join(tmpdir(), 'wherry-test-'));
    this.#names += 1;
    const file = `${this.#names}-${name}`;
    return join(await this.#directory, file);
  }

  start(args: readonly string[]): WherryProcess {
    const started = new WherryProcess(args);
    this.#processes.push(started);
    return started;
  }

  /** Runs a command to its end. */
  run(args: readonly string[]): Promise<Ended> {
    return this.start(args).ended;
  }

  /** Starts a host and waits until it is ready. */
  async host(args: readonly string[]): Promise<RunningHost> {
    const path = await this.path('qmp');
    const qmp = `unix:${path}`;
    const started = this.start(['host', '--qmp', qmp, ...args]);
    await until(
      () => started.stdout.split('\n').length > 3 || !started.isRunning,
      'a host is ready',
    );
    if (!started.isRunning) throw new Error(`the host ended: ${(await started.ended).stderr}`);
    const client = await this.client(path);
    const events: string[] = [];
    for (const name of ['RESUME', 'STOP', 'SHUTDOWN']) client.on(name, () => events.push(name));
    client.on('MIGRATION', ({ data }) => events.push(`MIGRATION ${data.status}`));
    client.on('MIGRATION_PASS', ({ data }) => events.push(`MIGRATION_PASS ${data.pass}`));
    return { process: started, qmp, path, client, events };
  }

  /** A source that runs a guest and a destination that waits for it. */
  async pair(guest: readonly string[]): Promise<[RunningHost, RunningHost]> {
    return Promise.all([this.host(guest), this.host([...guest, '--incoming', 'defer'])]);
  }

  async client(path: string): Promise<QmpClient<HostSchema>> {
    const client = await QmpClient.connect<HostSchema>(await openQmpChannel({ path }));
    this.#clients.push(client);
    return client;
  }

  async close(): Promise<void> {
    for (const client of this.#clients.splice(0)) client.close();
    await Promise.all(this.#processes.splice(0).map((started) => started.end()));
    const directory = await this.#directory;
    this.#directory = undefined;
    if (directory !== undefined) await rm(directory, { recursive: true });
  }
}

/** Waits for something that becomes true. */
export async function until(
  isTrue: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 30_000,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await sleep(10);
  }
}

/** Waits until a host's migration has one of the statuses. @returns its query-migrate */
export async function untilStatus(
  { client }: Pick<RunningHost, 'client'>,
  ...statuses: string[]
): Promise<Awaited<ReturnType<typeof queryMigrate>>> {
  let info = await queryMigrate(client);
  await until(
    async () => {
      info = await queryMigrate(client);
      return statuses.includes(info.status ?? '');
    },
    `status ${statuses.join(' or ')}, not ${info.status}`,
  );
  return info;
}

function queryMigrate(client: QmpClient<HostSchema>) {
  return client.execute('query-migrate');
}

/** Sees that a host's guest runs, that its writes go on, and that no page was lost. */
export async function expectGuestRuns({ client }: Pick<RunningHost, 'client'>): Promise<void> {
  expect(await client.execute('query-status')).toEqual({ running: true, status: 'running' });
  const before = Number((await client.execute('x-wherry-guest')).writes);
  await until(
    async () => Number((await client.execute('x-wherry-guest')).writes) > before,
    'the guest writes',
  );
  const { violations } = await client.execute('x-wherry-verify');
  expect(violations).toBe(0);
}

/** Connects to a migration's port or path and sends bytes; resolves when the other side closes. */
export async function sendRaw(
  target: { port: number } | { path: string },
  bytes: Uint8Array,
  options: { readonly end: boolean } = { end: true },
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const socket = connect({ ...('port' in target ? { host: '127.0.0.1' } : {}), ...target });
    socket.once('error', reject);
    socket.once('close', () => resolve());
    socket.resume();
    socket.once('connect', () => (options.end ? socket.end(bytes) : socket.write(bytes)));
  });
}

/** The port that an incoming host listens on. */
export async function incomingPort({ client }: Pick<RunningHost, 'client'>): Promise<number> {
  const { 'socket-address': addresses } = await client.execute('query-migrate');
  const [address] = addresses ?? [];
  if (address?.type !== 'inet') throw new Error('the host listens on no port');
  return Number(address.port);
}
