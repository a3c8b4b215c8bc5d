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

  private constructor(args: readonly string[], cwd: string | undefined) {
    this.#child = spawn(process.execPath, [WHERRY, ...args], { cwd });
    this.#child.stdout?.on('data', (chunk: Buffer) => (this.#stdout += chunk.toString()));
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.ended = new Promise((resolve) =>
      this.#child.once('close', (exitCode) =>
        resolve({ exitCode, stdout: this.#stdout, stderr: this.#stderr }),
      ),
    );
  }

  /** Starts it, in a folder where its paths are relative. */
  static start(args: readonly string[], cwd?: string): WherryCommand {
    return new WherryCommand(args, cwd);
  }

  /** Waits for the URI that it listens on. @throws Error with what it said when it ends before */
  async listeningUri(): Promise<string> {
    const found = Promise.withResolvers<string>();
    const look = (): void => {
      const uri = /^Listening on (\S+)$/m.exec(this.#stderr)?.[1];
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
