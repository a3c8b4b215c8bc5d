import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const WHERRY = fileURLToPath(new URL('../apps/wherry/dist/main.js', import.meta.url));

/** How a command ended. */
export interface EndedCommand {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A `wherry` command as a process; ends with `await using`. */
export class WherryCommand implements AsyncDisposable {
  readonly #child: ChildProcess;
  /** Resolves when it has ended. */
  readonly ended: Promise<EndedCommand>;
  #stdout = '';
  #stderr = '';

  private constructor(args: readonly string[], cwd: string | undefined, fds: readonly number[]) {
    this.#child = spawn(process.execPath, [WHERRY, ...args], {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe', ...fds],
    });
    this.#child.stdout?.on('data', (chunk: Buffer) => (this.#stdout += chunk.toString()));
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.ended = new Promise((resolve) =>
      this.#child.once('close', (exitCode) =>
        resolve({ exitCode, stdout: this.#stdout, stderr: this.#stderr }),
      ),
    );
  }

  /**
   * Starts it, in a folder where its paths are relative.
   *
   * @param fds file descriptors that it inherits, as 3 and following
   */
  static start(args: readonly string[], cwd?: string, fds: readonly number[] = []): WherryCommand {
    return new WherryCommand(args, cwd, fds);
  }

  /** Waits for its end. @throws Error with what it said when it did not succeed, or takes too long */
  async succeeded(timeoutMs = 40_000): Promise<string> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeoutMs);
    const { exitCode, stdout, stderr } = await this.ended;
    clearTimeout(timer);
    if (exitCode === 0) return stdout;
    const how = exitCode === null ? `was not done after ${timeoutMs} ms` : `exit code ${exitCode}`;
    const said = stderr.replace(/^Listening on .+\n/m, '').trim();
    throw new Error(`${said === '' ? 'wherry' : said} (${how})`);
  }

  /** Waits until it has printed something on standard error. @throws Error when it ends before */
  async says(what: RegExp): Promise<void> {
    const found = Promise.withResolvers<void>();
    const look = (): void => {
      if (what.test(this.#stderr)) found.resolve();
    };
    this.#child.stderr?.on('data', look);
    look();
    const end = this.ended.then(({ stderr }) => {
      throw new Error(`the command ended: ${stderr}`);
    });
    await Promise.race([found.promise, end]);
  }

  /** Waits for the URI that it listens on. @throws Error with what it said when it ends before */
  async listeningUri(): Promise<string> {
    const found = Promise.withResolvers<string>();
    const look = (): void => {
      const uri = /^Listening on (.+)$/m.exec(this.#stderr)?.[1];
      if (uri !== undefined) found.resolve(uri);
    };
    this.#child.stderr?.on('data', look);
    look();
    const end = this.ended.then(({ stderr }) => {
      throw new Error(`the command ended: ${stderr}`);
    });
    return Promise.race([found.promise, end]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }
}
