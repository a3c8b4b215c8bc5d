import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { addGuestOptions, type GuestOptions, guestArguments } from '../host/guest-options.ts';
import {
  addMigrateOptions,
  type MigrateOptions,
  parseChannel,
} from '../migrate/migrate-options.ts';
import { runMigration } from '../migrate/run.ts';

interface DemoOptions extends GuestOptions, MigrateOptions {
  readonly uri: string;
}

const DEFAULT_BANDWIDTH = 256 * 2 ** 20;
const QUIT_MS = 5000;

/** `wherry demo`: two hosts on this machine, and a migration between them. */
export function demoCommand(): Command {
  const command = new Command('demo')
    .summary('start two hosts and migrate a running guest between them')
    .description(
      'Starts two simulated hosts on this machine, lets a guest run on the first, and migrates it to the second.',
    )
    .option('--uri <uri>', 'channel between them', parseChannel, 'tcp:127.0.0.1:0');
  addMigrateOptions(command);
  addGuestOptions(command);
  command.addHelpText(
    'after',
    `
Without --max-bandwidth precopy runs at 256 MiB/s, so that there is something
to see.

Example:
  $ wherry demo --auto-postcopy --vcpu hotset,rate=200000
  $ wherry demo --postcopy --ram hugemem=512M,page=2M --max-bandwidth 0`,
  );
  return command.action(runDemo);
}

async function runDemo(options: DemoOptions): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'wherry-demo-'));
  const hosts: HostProcess[] = [];
  const interrupted = Promise.withResolvers<never>();
  interrupted.promise.catch(() => {});
  const onSignal = (): void => interrupted.reject(new CliError('Interrupted', 130));
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const addresses = ['source', 'destination'].map(
      (name) => `unix:${join(directory, `${name}.qmp`)}`,
    );
    const [sourceQmp, destinationQmp] = addresses as [string, string];
    const guest = guestArguments(options);
    hosts.push(new HostProcess('source', ['--qmp', sourceQmp, ...guest]));
    hosts.push(
      new HostProcess('destination', ['--qmp', destinationQmp, '--incoming', 'defer', ...guest]),
    );
    const ready = Promise.all(hosts.map((host) => host.ready));
    const banners = await Promise.race([ready, interrupted.promise]);
    if (options.json !== true) console.log(banners[0]);
    const maxBandwidth = options.maxBandwidth ?? DEFAULT_BANDWIDTH;
    await runMigration(sourceQmp, destinationQmp, options.uri, { ...options, maxBandwidth });
  } finally {
    await Promise.all(hosts.map((host) => host.end()));
    await rm(directory, { recursive: true, force: true });
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** A `wherry host` as a child process. Ctrl-C reaches it through this process alone, so that it can be asked to cancel first. */
class HostProcess {
  readonly ready: Promise<string>;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  constructor(name: string, args: readonly string[]) {
    // All of the command is built into one folder.
    const main = fileURLToPath(new URL('./main.js', import.meta.url));
    const child = spawn(process.execPath, [main, 'host', ...args], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'], // it ends when the other end of the ipc does
      detached: true,
    });
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once('exit', resolve));
    this.ready = new Promise((resolve, reject) => {
      let text = '';
      child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        if (text.split('\n').length > 3) resolve(text.trimEnd());
      });
      const fail = (why: string): void =>
        reject(new CliError(`The ${name} host did not start: ${why}; its own message is above`, 1));
      child.once('error', (error) => fail(error.message));
      child.once('exit', (code, signal) => fail(signal === null ? `exit code ${code}` : signal));
    });
    this.ready.catch(() => {}); // reported by whoever waits for it
  }

  /** Ends the process by its id, kindly first. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), QUIT_MS);
    await this.#exited;
    clearTimeout(timer);
  }
}
