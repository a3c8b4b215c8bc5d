import { QmpError } from '@wherry/qmp';
import { CliError } from '../cli-error.ts';
import { parseQmpAddress } from '../qmp-socket.ts';
import type { MigrateOptions } from './migrate-options.ts';
import { orchestrate } from './orchestrate.ts';
import { Peer } from './peer.ts';
import { Progress } from './progress.ts';
import { exitCodeOf, formatOutcome, outcomeAsJson } from './report.ts';

/** Migrates between two QMP sockets, shows it, and sets the process's exit code. */
export async function runMigration(
  sourceAddress: string,
  destinationAddress: string,
  uri: string,
  options: MigrateOptions,
): Promise<void> {
  const interrupted = new AbortController();
  const onInterrupt = (): void => interrupted.abort();
  process.on('SIGINT', onInterrupt).on('SIGTERM', onInterrupt);
  const peers: Peer[] = [];
  try {
    const source = await Peer.connect(parseQmpAddress(sourceAddress));
    peers.push(source);
    const destination = await Peer.connect(parseQmpAddress(destinationAddress));
    peers.push(destination);
    const progress = new Progress(process.stdout);
    const show = (snapshot: Parameters<Progress['show']>[0]): void => {
      if (options.json !== true) progress.show(snapshot);
    };
    const outcome = await orchestrate(source, destination, uri, options, show, interrupted.signal);
    progress.done();
    if (options.json === true) console.log(outcomeAsJson(outcome));
    else {
      console.log(formatOutcome(outcome, process.stdout.columns));
      if (outcome.problem !== undefined) console.error(outcome.problem);
    }
    process.exitCode = exitCodeOf(outcome);
  } catch (error) {
    if (error instanceof QmpError) throw new CliError(`QMP failed: ${error.message}`, 1);
    throw error;
  } finally {
    process.off('SIGINT', onInterrupt).off('SIGTERM', onInterrupt);
    for (const peer of peers) peer.close();
  }
}
