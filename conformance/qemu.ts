import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type MigrationCapability,
  type MigrationInfo,
  type MigrationParameters,
  type MigrationStatus,
  QmpClient,
  QmpError,
} from '@wherry/qmp';
import { bootSector, type GuestOptions } from './guest/boot-sector.ts';
import { firmware } from './guest/firmware.ts';
import { type Mark, parseMarks } from './guest/marks.ts';
import type { Peer } from './peers/peers.ts';
import { connectQmpSocket } from './qmp-socket.ts';

/** The machine to start; both ends of a migration need the same. */
export interface QemuOptions {
  /** Machine type; `pc-q35-5.2` unless told, which all releases know. */
  readonly machine?: string;
  /** RAM as QEMU's `-m` takes it; `8M` unless told. */
  readonly ram?: string;
  /**
   * What starts the guest: our own firmware as ROM (unless told) or flash, SeaBIOS from a disk, or
   * another image, and then no guest of ours.
   */
  readonly firmware?: 'wherry' | 'flash' | 'seabios' | Uint8Array;
  readonly guest?: GuestOptions;
  readonly accelerator?: 'tcg' | 'kvm';
  /** Further arguments, such as `['-device', 'e1000e,romfile=']`. */
  readonly args?: readonly string[];
  /** Waits for a migration: `defer`, or a URI. */
  readonly incoming?: string;
  /** File descriptors that it inherits, as 3 and following. */
  readonly fds?: readonly number[];
}

/** What a migration is given before it starts; each end takes its own. */
export interface MigrationSettings {
  readonly capabilities?: readonly MigrationCapability[];
  readonly parameters?: MigrationParameters;
}

/** What is running, and its folder: none may stay when this process ends before it has closed them. */
const running = new Map<ChildProcess, string>();

/**
 * Is a running QEMU with the tiny guest, in a temporary folder of its own that is also its working
 * directory: file names in arguments and URIs may be relative. Close it, or declare it with
 * `await using`.
 */
export class QemuProcess implements AsyncDisposable {
  readonly peer: Peer;
  /** The temporary folder. */
  readonly directory: string;
  /** The QEMU arguments; all paths in them are relative to the folder. */
  readonly args: readonly string[];
  /** Resolves to the exit code, or the signal's name, when the process has ended. */
  readonly exited: Promise<number | string>;
  readonly #child: ChildProcess;
  #ended = false;
  #stderr = '';
  #qmp: QmpClient | undefined;

  private constructor(
    peer: Peer,
    directory: string,
    args: readonly string[],
    fds: readonly number[] = [],
  ) {
    this.peer = peer;
    this.directory = directory;
    this.args = args;
    const { file, argv, env } = peer.command(args);
    this.#child = spawn(file, argv, {
      cwd: directory,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe', ...fds],
    });
    if (running.size === 0) process.once('exit', killAll);
    running.set(this.#child, directory);
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-8000);
    });
    this.exited = new Promise((resolve) => {
      const end = (result: number | string): void => {
        this.#ended = true;
        running.delete(this.#child);
        if (running.size === 0) process.off('exit', killAll);
        resolve(result);
      };
      this.#child.once('error', (error) => end(error.message));
      this.#child.once('close', (code, signal) => end(code ?? signal ?? 'unknown'));
    });
  }

  /** Starts QEMU and connects to its QMP. @throws Error with QEMU's stderr if it does not come up */
  static async start(peer: Peer, options: QemuOptions = {}): Promise<QemuProcess> {
    const directory = mkdtempSync(join(tmpdir(), 'wherry-qemu-'));
    const sector = bootSector(options.guest);
    if (options.firmware instanceof Uint8Array) {
      writeFileSync(join(directory, 'firmware.bin'), options.firmware);
    } else if (options.firmware === 'seabios') {
      writeFileSync(join(directory, 'disk.img'), sector);
      truncateSync(join(directory, 'disk.img'), 1 << 20); // SeaBIOS reads no disk below a cylinder
    } else {
      writeFileSync(join(directory, 'firmware.bin'), firmware(sector));
    }
    const qemu = new QemuProcess(peer, directory, qemuArguments(options), options.fds);
    try {
      qemu.#qmp = await qemu.#connect(10_000);
      return qemu;
    } catch (error) {
      await qemu.close();
      throw error;
    }
  }

  /** The QMP connection. */
  get qmp(): QmpClient {
    return this.#qmp!;
  }

  /** What QEMU wrote to stderr, its last 8000 characters. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Everything that the guest wrote to its serial port since this process started. */
  get serialText(): string {
    try {
      return readFileSync(join(this.directory, 'serial.txt'), 'latin1');
    } catch {
      return '';
    }
  }

  /**
   * Every mark that the guest printed since this process started.
   *
   * A source may stop within a mark: then the destination prints the rest of that line first, and
   * it is left out here. To see every pass, parse both texts together: {@link marksAcross}.
   */
  get marks(): Mark[] {
    const text = this.serialText;
    if (!this.args.includes('-incoming')) return parseMarks(text);
    return parseMarks(text.replace(/^[0-9a-f]{0,7}(?:![0-9a-f]{0,8})?\n/, ''));
  }

  /** Waits until the guest has finished a pass of at least this number; resolves to all marks. */
  async waitForPass(pass: number, timeoutMs = 20_000): Promise<Mark[]> {
    const marks = await this.#poll(timeoutMs, `the guest finished no pass ${pass}`, async () => {
      const now = this.marks;
      return (now.at(-1)?.pass ?? 0) >= pass ? now : undefined;
    });
    return marks;
  }

  /** Waits until the guest has printed this many more marks than at the call. */
  async waitForMarks(count: number, timeoutMs = 20_000): Promise<Mark[]> {
    const before = this.marks.length;
    return this.#poll(timeoutMs, `the guest printed no ${count} further marks`, async () => {
      const now = this.marks;
      return now.length >= before + count ? now : undefined;
    });
  }

  /** Switches capabilities on and sets parameters. */
  async configureMigration(settings: MigrationSettings): Promise<void> {
    const { capabilities = [], parameters } = settings;
    if (capabilities.length > 0) {
      await this.qmp.execute('migrate-set-capabilities', {
        capabilities: capabilities.map((capability) => ({ capability, state: true })),
      });
    }
    if (parameters !== undefined) await this.qmp.execute('migrate-set-parameters', parameters);
  }

  /** Starts to migrate to a URI; see {@link waitForMigration}. */
  async startMigration(uri: string, settings: MigrationSettings = {}): Promise<void> {
    await this.configureMigration(settings);
    await this.qmp.execute('migrate', { uri });
  }

  /** Migrates to a URI and waits until it is completed. */
  async migrate(uri: string, settings: MigrationSettings = {}): Promise<MigrationInfo> {
    await this.startMigration(uri, settings);
    return this.waitForMigration();
  }

  /** Listens at a URI; needs `incoming: 'defer'`. */
  async listen(uri: string, settings: MigrationSettings = {}): Promise<void> {
    await this.configureMigration(settings);
    await this.qmp.execute('migrate-incoming', { uri });
  }

  /** Listens on a free TCP port of 127.0.0.1 and returns it; needs `incoming: 'defer'`. */
  async listenTcp(settings: MigrationSettings = {}): Promise<number> {
    await this.listen('tcp:127.0.0.1:0', settings);
    return this.#poll(5_000, 'query-migrate names no port', async () => {
      const addresses = (await this.qmp.execute('query-migrate'))['socket-address'] ?? [];
      const address = addresses.find(({ type }) => type === 'inet') as { port?: string };
      return address?.port === undefined ? undefined : Number(address.port);
    });
  }

  /**
   * Waits, on either end, until the migration has one of these states, `completed` unless told.
   *
   * @throws Error if it ends otherwise, or the process does; QEMU's reason is in the message
   */
  async waitForMigration(
    states: readonly MigrationStatus[] = ['completed'],
    timeoutMs = 30_000,
  ): Promise<MigrationInfo> {
    return this.waitForMigrationInfo(
      ({ status }) => status !== undefined && states.includes(status),
      `become ${states.join()}`,
      timeoutMs,
    );
  }

  /**
   * Waits, on either end, until `query-migrate` answers what the predicate accepts; `what` ends the
   * sentence "the migration did not …".
   *
   * @throws Error as {@link waitForMigration}
   */
  async waitForMigrationInfo(
    accepts: (info: MigrationInfo) => boolean,
    what: string,
    timeoutMs = 30_000,
  ): Promise<MigrationInfo> {
    return this.#poll(timeoutMs, `the migration did not ${what}`, async () => {
      const info = await this.qmp.execute('query-migrate');
      if (accepts(info)) return info;
      if (['failed', 'cancelled', 'completed'].includes(info.status ?? 'none')) {
        const reason = info['error-desc'] ?? 'no reason given';
        throw new Error(this.#describe(`migration ${info.status}, it did not ${what}: ${reason}`));
      }
      return undefined;
    });
  }

  /** Kills the process, waits for its end and removes the folder. */
  async close(): Promise<void> {
    this.#qmp?.close();
    if (!this.#ended) this.#child.kill('SIGKILL');
    await this.exited;
    rmSync(this.directory, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #connect(timeoutMs: number): Promise<QmpClient> {
    const path = join(this.directory, 'qmp.sock');
    return this.#poll(timeoutMs, 'no QMP connection', async () => {
      const channel = await connectQmpSocket(path).catch(() => undefined);
      if (channel === undefined) return undefined;
      try {
        return await QmpClient.connect(channel, { timeoutMs });
      } catch (error) {
        // QEMU 5.2 and 7.2 emit MIGRATION for `-incoming` while they start, and a client that is
        // there already may get it before the greeting.
        if (error instanceof QmpError && error.code === 'PROTOCOL') return undefined;
        throw error;
      }
    });
  }

  async #poll<T>(
    timeoutMs: number,
    failure: string,
    attempt: () => Promise<T | undefined>,
  ): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      let result: T | undefined;
      try {
        result = await attempt();
      } catch (error) {
        // A lost QMP connection mostly means that QEMU ended: its stderr says more.
        await Promise.race([this.exited, sleep(200)]);
        if (!this.#ended) throw error;
      }
      if (result !== undefined) return result;
      if (this.#ended) throw new Error(this.#describe(`ended with ${await this.exited}`));
      if (performance.now() > deadline) {
        throw new Error(this.#describe(`${failure} within ${timeoutMs} ms`));
      }
      await sleep(15);
    }
  }

  #describe(problem: string): string {
    const stderr = this.#stderr.trim();
    return `QEMU ${this.peer.version}: ${problem}${stderr === '' ? '' : `; stderr: ${stderr}`}`;
  }
}

/** Reads the marks that a guest printed on its way over several hosts, in the order given. */
export function marksAcross(...hosts: readonly QemuProcess[]): Mark[] {
  return parseMarks(hosts.map(({ serialText }) => serialText).join(''));
}

function qemuArguments(options: QemuOptions): string[] {
  const { machine = 'pc-q35-5.2', ram = '8M', accelerator = 'tcg' } = options;
  const boot = bootArguments(options.firmware ?? 'wherry');
  const incoming = options.incoming === undefined ? [] : ['-incoming', options.incoming];
  return [
    ...['-nodefaults', '-M', machine, '-m', ram, '-accel', accelerator, '-display', 'none'],
    ...boot,
    ...['-serial', 'file:serial.txt', '-qmp', 'unix:qmp.sock,server=on,wait=off'],
    ...(options.args ?? []),
    ...incoming,
  ];
}

function bootArguments(firmware: NonNullable<QemuOptions['firmware']>): readonly string[] {
  switch (firmware) {
    case 'flash':
      return ['-drive', 'file=firmware.bin,format=raw,if=pflash,readonly=on'];
    case 'seabios':
      return ['-drive', 'file=disk.img,format=raw,if=ide'];
    default:
      return ['-bios', 'firmware.bin'];
  }
}

function killAll(): void {
  for (const [child, directory] of running) {
    child.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}
