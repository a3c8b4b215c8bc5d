import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const WHERRY = fileURLToPath(new URL('../apps/wherry/dist/main.js', import.meta.url));

/** A `wherry host` process with its QMP socket at a given path; ends with `await using`. */
export class SimulatedHost implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once('exit', resolve));
  }

  /** Starts a host and waits until it is ready. */
  static async start(qmpPath: string, args: readonly string[]): Promise<SimulatedHost> {
    const child = spawn(process.execPath, [WHERRY, 'host', '--qmp', `unix:${qmpPath}`, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const host = new SimulatedHost(child);
    await new Promise<void>((resolve, reject) => {
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('ready')) resolve();
      });
      child.once('exit', (code) => reject(new Error(`wherry host ended with ${code}`)));
    });
    return host;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#exited;
  }
}

/** The report of `wherry migrate --json`. */
export interface MigrateReport {
  readonly status: string;
  readonly problem?: string;
  readonly source: { readonly ram: Readonly<Record<string, number>> };
}

/** Runs `wherry migrate --json` between two QMP sockets. */
export async function migrate(
  sourceQmp: string,
  destinationQmp: string,
  uri: string,
  args: readonly string[] = [],
): Promise<MigrateReport> {
  const argv = [
    WHERRY,
    'migrate',
    `unix:${sourceQmp}`,
    `unix:${destinationQmp}`,
    uri,
    '--json',
    ...args,
  ];
  const { stdout } = await promisify(execFile)(process.execPath, argv).catch(
    (error: { stdout?: string; stderr?: string; message: string }) => {
      if (error.stdout?.startsWith('{')) return { stdout: error.stdout };
      throw new Error(`${error.message}\n${error.stderr}`);
    },
  );
  return JSON.parse(stdout) as MigrateReport;
}
