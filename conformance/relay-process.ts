import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const WHERRY = fileURLToPath(new URL('../apps/wherry/dist/main.js', import.meta.url));

/** What `wherry relay --json` prints, as far as tests look at it. */
export interface RelayReport {
  readonly status: string;
  readonly pages: { readonly page: number; readonly zero: number };
  readonly devices: number;
  readonly channels: readonly {
    readonly name: string;
    readonly end: string;
    readonly forwardBytes: number;
    readonly backwardBytes: number;
    readonly messages?: Readonly<Record<string, number>>;
    readonly problem?: object;
  }[];
  readonly faults: readonly { readonly channel: string; readonly offset: number }[];
  readonly missed: readonly object[];
}

/** A `wherry relay` process between two URIs. */
export class RelayProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #stdout = '';
  #stderr = '';

  private constructor(args: readonly string[], directory: string) {
    this.#child = spawn(process.execPath, [WHERRY, 'relay', ...args, '--json'], { cwd: directory });
    this.#child.stdout?.on('data', (chunk: Buffer) => (this.#stdout += chunk.toString()));
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#exited = new Promise((resolve) => this.#child.once('close', resolve));
  }

  /** Starts a relay in a folder and waits until it listens. */
  static async start(directory: string, ...args: readonly string[]): Promise<RelayProcess> {
    const relay = new RelayProcess(args, directory);
    const listening = new Promise<void>((resolve) => {
      relay.#child.stderr?.on('data', () => {
        if (relay.#stderr.includes('Listening on')) resolve();
      });
    });
    await Promise.race([
      listening,
      relay.#exited.then((code) => {
        throw new Error(`the relay ended with ${code}: ${relay.#stderr}`);
      }),
    ]);
    return relay;
  }

  /** Waits for its end. */
  async result(): Promise<{ readonly exitCode: number | null; readonly report: RelayReport }> {
    const exitCode = await this.#exited;
    return { exitCode, report: JSON.parse(this.#stdout) as RelayReport };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
