import { Command } from 'commander';
import { addMigrateOptions, type MigrateOptions, parseChannel } from './migrate-options.ts';
import { runMigration } from './run.ts';

/** `wherry migrate`: a migration between any two hosts, through QMP alone. */
export function migrateCommand(): Command {
  const command = new Command('migrate')
    .summary('migrate between two hosts through their QMP sockets')
    .description(
      'Migrates the guest of one host to another, through QMP alone: simulated hosts or real QEMUs.\nThe destination must have been started with --incoming defer (QEMU: -incoming defer).',
    )
    .argument(
      '<source-qmp>',
      'QMP socket of the host that runs the guest: unix:PATH or tcp:HOST:PORT',
    )
    .argument('<destination-qmp>', 'QMP socket of the host that waits for it')
    .argument(
      '<uri>',
      'channel between them: tcp:HOST:PORT (port 0: any) or unix:PATH',
      parseChannel,
    );
  addMigrateOptions(command)
    .option('--tls-creds <id>', 'speak TLS with the credentials of this id, which both hosts have')
    .option(
      '--tls-hostname <name>',
      'the name in the destination’s certificate, where the URI has another',
    );
  command.addHelpText(
    'after',
    `
Exit codes: 0 completed and whole, 1 failed or a page was lost, 2 wrong usage,
130 cancelled.

Example:
  $ wherry migrate /tmp/a.qmp /tmp/b.qmp tcp:127.0.0.1:0 --auto-postcopy`,
  );
  return command.action(
    (source: string, destination: string, uri: string, options: MigrateOptions) =>
      runMigration(source, destination, uri, options),
  );
}
