import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { CliError } from './cli-error.ts';

interface Entry {
  readonly summary: string;
  /** Loads the command when it is asked for, so that `--help` and every other command start fast. */
  readonly load: () => Promise<Command>;
}

const COMMANDS: ReadonlyMap<string, Entry> = new Map([
  [
    'demo',
    {
      summary: 'start two hosts and migrate a running guest between them',
      load: async () => (await import('./demo/command.ts')).demoCommand(),
    },
  ],
  [
    'host',
    {
      summary: 'start a simulated host: a guest behind a QMP socket',
      load: async () => (await import('./host/command.ts')).hostCommand(),
    },
  ],
  [
    'migrate',
    {
      summary: 'migrate between two hosts through their QMP sockets',
      load: async () => (await import('./migrate/command.ts')).migrateCommand(),
    },
  ],
  [
    'inspect',
    {
      summary: 'show what is in a migration stream, whole or broken',
      load: async () => (await import('./inspect/command.ts')).inspectCommand(),
    },
  ],
  [
    'explain',
    {
      summary: 'say what a message of a failed migration means',
      load: async () => (await import('./explain/command.ts')).explainCommand(),
    },
  ],
  [
    'check',
    {
      summary: 'say before a migration whether the other side will load it',
      load: async () => (await import('./check/command.ts')).checkCommand(),
    },
  ],
  [
    'receive',
    {
      summary: 'take a guest out of a real QEMU and keep its stream in a file',
      load: async () => (await import('./receive/command.ts')).receiveCommand(),
    },
  ],
  [
    'convert',
    {
      summary: 'turn a guest in a file into another format: stream, mapped-ram, raw, elf',
      load: async () => (await import('./convert/command.ts')).convertCommand(),
    },
  ],
  [
    'send',
    {
      summary: 'put the guest of a file into a waiting QEMU, at once with --postcopy',
      load: async () => (await import('./send/command.ts')).sendCommand(),
    },
  ],
  [
    'relay',
    {
      summary: 'stand between two sides: show, record, slow down, break a migration',
      load: async () => (await import('./relay/command.ts')).relayCommand(),
    },
  ],
]);

const LEAST_NODE = [22, 15] as const;

async function main(args: readonly string[]): Promise<void> {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < LEAST_NODE[0] || (major === LEAST_NODE[0] && minor < LEAST_NODE[1])) {
    throw new CliError(
      `Node ${LEAST_NODE.join('.')} or newer is needed, this is ${process.versions.node}: in a clone, npx runs the one that npm ci installed`,
      2,
    );
  }
  const [first, ...rest] = args[0] === 'help' ? [args[1] ?? '--help', '--help'] : args;
  if (first === '--version' || first === '-V') {
    console.log(versionOf());
  } else if (first === '--help' || first === '-h') {
    console.log(help());
  } else if (first === undefined) {
    console.error(help());
    process.exitCode = 2;
  } else {
    await run(first, rest);
  }
}

async function run(name: string, args: readonly string[]): Promise<void> {
  const entry = COMMANDS.get(name);
  if (entry === undefined) {
    const kind = name.startsWith('-') ? 'option' : 'command';
    throw new CliError(`unknown ${kind} '${name}' (--help tells more)`, 2);
  }
  const command = await entry.load();
  command
    .name(`wherry ${name}`)
    .configureOutput({
      outputError: (text, write) =>
        write(
          `${text
            .trim()
            .replace(/^error: /, 'wherry: ')
            .replaceAll('\n', ' ')} (--help tells more)\n`,
        ),
    })
    .exitOverride();
  try {
    await command.parseAsync(args, { from: 'user' });
  } catch (error) {
    const { CommanderError } = await import('commander');
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? 0 : 2; // commander has printed it
  }
}

/** Written by hand: loading the parser of command lines takes longer than the rest of `--help`. */
function help(): string {
  const lines = [...COMMANDS].map(([name, { summary }]) => `  ${name.padEnd(15)}${summary}`);
  return `Usage: wherry COMMAND [options]

Live migration of virtual machines in QEMU’s own protocol.

Commands:
${lines.join('\n')}
  help [COMMAND] tell a command's options

Options:
  -V, --version  print the version
  -h, --help     print this`;
}

function versionOf(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}

/** A closed pipe (`| head`) is no failure. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof CliError) {
    if (error.message !== '') console.error(`wherry: ${error.message}`);
    process.exitCode = error.exitCode;
  } else {
    const message = error instanceof Error ? error.message : String(error);
    console.error(`wherry: ${message}`);
    process.exitCode = 1;
  }
}
