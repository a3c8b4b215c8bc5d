import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Transport } from '@wherry/migration';
import { SocketReader } from './socket-reader.ts';
import { adoptSocket, destroyed } from './socket-transport.ts';
import { SocketWriter } from './socket-writer.ts';
import { fromSystemError, TransportError } from './transport-error.ts';

/** How much of what the command says on its standard error an error message repeats. */
const STDERR_TAIL_BYTES = 1024;
/** How long a command that has closed its output may take to end with a status. */
const EXIT_GRACE_MS = 1000;
/** How long a command that was told to end may take before it is killed. */
const KILL_GRACE_MS = 2000;

/**
 * A shell command as a connection: written bytes are its standard input, its standard output is read.
 *
 * A status other than 0 fails the read that meets the end of its output and the `end` that waits for
 * it. `end` resolves when the command has ended well, or once it wants its output read first.
 */
export class CommandTransport implements Transport {
  readonly #child: ChildProcess;
  readonly #place: string;
  readonly #output: Socket;
  readonly #reader: SocketReader;
  readonly #writer: SocketWriter;
  readonly #exit: Promise<TransportError | undefined>;
  #hasExited = false;
  #stderr = '';
  #failure: Error | undefined;

  constructor(command: string) {
    this.#place = `exec:${command}`;
    // A group of its own, so that destroy reaches what the shell has started.
    const child = spawn('/bin/sh', ['-c', command], { stdio: 'pipe', detached: true });
    this.#child = child;
    const describe = (error: unknown): TransportError =>
      fromSystemError(error, this.#place, 'CONNECTION_LOST');
    this.#reader = new SocketReader(describe);
    this.#output = adoptSocket(child.stdout as Socket, this.#reader);
    this.#reader.attach(this.#output);
    this.#output.on('error', (error) => this.#reader.fail(describe(error)));
    this.#writer = new SocketWriter(child.stdin, describe);
    child.stdin.on('error', () => {}); // the write's callback reports it
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL_BYTES);
    });
    this.#exit = new Promise((resolve) => {
      const settle = (failure: TransportError | undefined): void => {
        this.#hasExited = true;
        // What it said last may still be on its way.
        setImmediate(() => resolve(failure && this.#withStderr(failure)));
      };
      child.once('error', (error) => settle(describe(error)));
      child.once('exit', (status, signal) =>
        settle(
          status === 0
            ? undefined
            : this.#failed(signal === null ? `exit status ${status}` : `killed by ${signal}`),
        ),
      );
    });
  }

  async read(into: Uint8Array): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure;
    const count = await this.#reader.read(into);
    if (count > 0 || into.length === 0) return count;
    const failure = await this.#exitWithin(EXIT_GRACE_MS);
    if (this.#failure !== undefined) throw this.#failure;
    if (failure !== undefined) throw failure;
    return 0;
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#writer.write(bytes);
    } catch (error) {
      throw await this.#writeFailure(error);
    }
  }

  async end(): Promise<void> {
    try {
      await this.#writer.end();
    } catch (error) {
      throw await this.#writeFailure(error);
    }
    const failure = await Promise.race([this.#exit, this.#reader.whenWaiting()]);
    if (this.#failure !== undefined) throw this.#failure;
    if (failure instanceof Error) throw failure;
  }

  destroy(reason: Error = destroyed()): void {
    this.#failure ??= reason;
    this.#reader.destroy(reason);
    this.#writer.fail(reason);
    this.#output.destroy();
    this.#child.stdin?.destroy();
    this.#child.stderr?.destroy();
    if (this.#hasExited) return;
    this.#kill('SIGTERM');
    const timer = setTimeout(() => this.#kill('SIGKILL'), KILL_GRACE_MS);
    timer.unref();
    void this.#exit.then(() => clearTimeout(timer));
  }

  /** A broken pipe says little: how the command ended says why. */
  async #writeFailure(error: unknown): Promise<unknown> {
    if (this.#failure !== undefined) return this.#failure;
    if (!(error instanceof TransportError) || error.code !== 'CONNECTION_LOST') return error;
    const failure = await this.#exitWithin(EXIT_GRACE_MS);
    return failure ?? this.#failed('it ended, or closed its input, before it had read everything');
  }

  #exitWithin(graceMs: number): Promise<TransportError | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, graceMs, undefined);
      void this.#exit.then((failure) => {
        clearTimeout(timer);
        resolve(failure);
      });
    });
  }

  #kill(signal: NodeJS.Signals): void {
    if (this.#hasExited || this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, signal);
    } catch {
      // It has just ended.
    }
  }

  #failed(found: string): TransportError {
    return new TransportError('COMMAND_FAILED', `The command ${this.#place} failed: ${found}`, {
      likely: 'Run the command by itself to see why',
    });
  }

  #withStderr(failure: TransportError): TransportError {
    const said = this.#stderr.trim();
    if (said === '') return failure;
    return new TransportError(failure.code, failure.what, {
      found: `it said ${JSON.stringify(said)}`,
      likely: 'Run the command by itself to see why',
    });
  }
}
