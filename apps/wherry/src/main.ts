import { readFile } from 'node:fs/promises';
import { Command, CommanderError } from 'commander';
import { CliError } from './cli-error.ts';

/** Each command is loaded when it is asked for, so that `--help` starts fast. */
const COMMANDS = {
  demo: async () => (await import('./demo/command.ts')).demoCommand(),
  host: async () => (await import('./host/command.ts')).hostCommand(),
  migrate: async () => (await import('./migrate/command.ts')).migrateCommand(),
  inspect: async () => (await import('./inspect/command.ts')).inspectCommand(),
  explain: async () => (await import('./explain/command.ts')).explainCommand(),
  receive: async () => (await import('./receive/command.ts')).receiveCommand(),
} as const satisfies Record<string, () => Promise<Command>>;

const SUMMARIES: Readonly<Record<keyof typeof COMMANDS, string>> = {
  demo: 'start two hosts and migrate a running guest between them',
  host: 'start a simulated host: a guest behind a QMP socket',
  migrate: 'migrate between two hosts through their QMP sockets',
  inspect: 'show what is in a migration stream',
  explain: 'say what a message of a failed migration means',
  receive: 'take a guest out of a real QEMU and keep its stream in a file',
};

const LEAST_NODE = [22, 15] as const;

async function main(args: readonly string[]): Promise<void> {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < LEAST_NODE[0] || (major === LEAST_NODE[0] && minor < LEAST_NODE[1])) {
    throw new CliError(
      `Node ${LEAST_NODE.join('.')} or newer is needed, this is ${process.versions.node}: in a clone, npx runs the one that npm ci installed`,
      2,
    );
  }
  const { version } = JSON.parse(
    await readFile(new URL('../package.json', import.meta.url), 'utf8'),
  ) as { version: string };
  const program = new Command('wherry')
    .description('Live migration of virtual machines in QEMU’s own protocol.')
    .version(version)
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
  const named = args.find((arg) => Object.hasOwn(COMMANDS, arg)) as
    | keyof typeof COMMANDS
    | undefined;
  for (const [name, load] of Object.entries(COMMANDS)) {
    const command =
      name === named
        ? await load()
        : new Command(name).summary(SUMMARIES[name as keyof typeof COMMANDS]);
    program.addCommand(command.copyInheritedSettings(program));
  }
  await program.parseAsync(args, { from: 'user' });
}

/** A closed pipe (`| head`) is no failure. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2; // commander has printed it
  } else if (error instanceof CliError) {
    if (error.message !== '') console.error(`wherry: ${error.message}`);
    process.exitCode = error.exitCode;
  } else {
    const message = error instanceof Error ? error.message : String(error);
    console.error(`wherry: ${message}`);
    process.exitCode = 1;
  }
}
