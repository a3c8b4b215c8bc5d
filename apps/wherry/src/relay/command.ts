import { type Listener, listen, parseUri, TransportError } from '@wherry/transport';
import { Command, InvalidArgumentError } from 'commander';
import { CliError } from '../cli-error.ts';
import { escapeControls } from '../inspect/output.ts';
import { parseSize } from '../sizes.ts';
import { type Fault, parseCorrupt, parseCut } from './fault.ts';
import { PassingLines } from './passing-lines.ts';
import { Recording } from './recording.ts';
import { Relay } from './relay.ts';
import { formatRelayReport, type RelayReport, reportOf } from './report.ts';

interface Options {
  readonly record?: string;
  readonly limit?: number;
  readonly delay?: number;
  readonly cutAfter?: readonly Fault[];
  readonly corrupt?: readonly Fault[];
  readonly json?: boolean;
}

const PLACES = `
A place is where a fault happens, once, on the first connection that has it:
  [main:]BYTES         so many bytes into the stream; return-path:, multifd: and
                       preempt: name other channels
  PHASE                setup, ram, switchover, devices, postcopy, recovery, end
  IDSTR                a section, behind its head: 0000:00:02.0/virtio-net
  COMMAND              behind it: postcopy-advise, packaged, ping, ...
  return-path:MESSAGE  behind it: pong, req-pages, shut, ...
+BYTES goes on from there. BYTES take 0x and the suffixes K, M, G.

Exit codes: 0 the migration passed whole, or all faults asked for happened;
1 not so; 2 wrong usage; 130 interrupted. After a break in postcopy the relay
waits for the recovery.`;

/** Makes the command `wherry relay`. */
export function relayCommand(): Command {
  return new Command('relay')
    .description('stand between the two sides of a migration: show, record, slow down, break it')
    .argument(
      '<listen-uri>',
      'where the source connects: tcp:HOST:PORT (port 0 takes a free one), unix:PATH, ...',
    )
    .argument('<target-uri>', 'where the destination listens')
    .option(
      '--record <file>',
      'keep the stream in this file, other channels and directions beside it',
    )
    .option('--limit <rate>', 'bytes a second in each direction, such as 10M', parseRate)
    .option('--delay <ms>', 'let each byte wait so long, in each direction', parseDelay)
    .option('--cut-after <place>', 'drop all connections behind this place (repeatable)', parseCut)
    .option(
      '--corrupt <place[^mask]>',
      'flip the bits of the byte at this place, or those of the mask (repeatable)',
      parseCorrupt,
    )
    .option('--json', 'print one JSON object at the end')
    .addHelpText('after', PLACES)
    .action(relayUntilSignal);
}

function parseRate(text: string): number {
  const rate = parseSize(text);
  if (rate === 0) throw new InvalidArgumentError('nothing would pass at 0 bytes a second.');
  return rate;
}

function parseDelay(text: string): number {
  const ms = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isFinite(ms)) throw new InvalidArgumentError('use milliseconds, up to 999999.');
  return ms;
}

async function relayUntilSignal(
  listenUri: string,
  targetUri: string,
  options: Options,
): Promise<void> {
  const interrupt = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void =>
    interrupt.abort(new CliError('Interrupted', signal === 'SIGINT' ? 130 : 143));
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    await relayWith(listenUri, targetUri, options, interrupt.signal);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

async function relayWith(
  listenUri: string,
  targetUri: string,
  options: Options,
  signal: AbortSignal,
): Promise<void> {
  await using listener = await openListener(listenUri, targetUri);
  const recording =
    options.record === undefined ? undefined : await Recording.create(options.record);
  const lines = options.json === true ? undefined : new PassingLines(process.stderr);
  const relay = new Relay(listener, targetUri, {
    ...{ faults: [...(options.cutAfter ?? []), ...(options.corrupt ?? [])], recording, signal },
    ...{ bytesPerSecond: options.limit, delayMs: options.delay },
    ...(lines === undefined ? {} : { onEvent: lines }),
  });
  process.stderr.write(`Listening on ${listener.uri}\n`);
  lines?.start(relay);
  try {
    await relay.run();
  } finally {
    lines?.stop();
    await recording?.close();
    const report = reportOf(relay, recording);
    console.log(
      options.json === true ? JSON.stringify(report) : escapeControls(formatRelayReport(report)),
    );
    if (!signal.aborted) check(report);
  }
}

/** @throws CliError 1 unless the migration passed as it was to */
function check({ status, faults, missed, problems }: RelayReport): void {
  if (missed.length > 0) {
    const places = missed.map(({ kind, at }) => `${kind} ${at}`).join(', ');
    throw new CliError(`That place never passed: ${places}`, 1);
  }
  if (problems.length > 0) throw new CliError(problems.join('; '), 1);
  if (faults.length === 0 && status !== 'completed' && status !== 'unread') {
    throw new CliError(SAID[status], 1);
  }
}

const SAID = {
  failed:
    'The destination said that the migration failed: its log says why (wherry explain - < LOG)',
  broken: 'The migration broke off: look at the logs of both sides (wherry explain - < LOG)',
  cut: 'The connection was cut',
  none: 'No migration stream came',
};

async function openListener(
  listenUri: string,
  targetUri: string,
): Promise<Listener & AsyncDisposable> {
  try {
    parseUri(targetUri);
    const listener = await listen(listenUri);
    return { ...listener, [Symbol.asyncDispose]: () => listener.close() };
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw new CliError(error.message, 2);
  }
}
