import { setImmediate } from 'node:timers/promises';
import { WherryError } from '@wherry/bytes';
import { MULTIFD_COMPRESSIONS, type MultifdCompression } from '@wherry/migration';
import {
  type Listener,
  listen,
  loadTlsCredentials,
  type TlsCredentials,
  TransportError,
} from '@wherry/transport';
import { Command, InvalidArgumentError, Option } from 'commander';
import { CliError } from '../cli-error.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from '../inspect/diagnosis.ts';
import { escapeControls } from '../inspect/output.ts';
import { MappedRamWriter } from '../ram/mapped-ram-writer.ts';
import { ExtraConnections } from './extra-connections.ts';
import { KeptFile } from './kept-file.ts';
import { MultifdChannels } from './multifd-channels.ts';
import { ReceiveProgress } from './progress.ts';
import { StreamReceiver } from './receive-stream.ts';
import { formatReceiveReport, type ReceiveReport, reportOf } from './report.ts';
import { StreamWriter } from './stream-writer.ts';

const FORMATS = ['mapped-ram', 'stream'] as const;
type Format = (typeof FORMATS)[number];

interface ReceiveFlags {
  readonly format: Format;
  readonly multifd?: number;
  readonly multifdCompression: MultifdCompression;
  readonly switchoverAck?: boolean;
  readonly tlsCreds?: string;
  readonly json?: boolean;
}

/** Makes the command `wherry receive`. */
export function receiveCommand(): Command {
  return new Command('receive')
    .description('receive a migration from QEMU and keep the guest in a file')
    .argument('<uri>', 'tcp:HOST:PORT (port 0 takes a free one), unix:, exec:, fd: or file:')
    .argument('<file>', 'the file to keep the guest in; it appears when the guest is whole')
    .addOption(
      new Option('--format <format>', 'how to keep it: loads from 9.0 on, or in any release')
        .choices(FORMATS)
        .default('mapped-ram'),
    )
    .option('--multifd <channels>', 'take multifd: as many channels as the source has', parseCount)
    .addOption(
      new Option('--multifd-compression <method>', 'as at the source')
        .choices(MULTIFD_COMPRESSIONS)
        .default('none'),
    )
    .option('--switchover-ack', 'acknowledge the switchover: the source has switchover-ack on')
    .option(
      '--tls-creds <dir>',
      'take TLS connections alone: the folder of QEMU’s tls-creds-x509 or tls-creds-psk',
    )
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      `
Load the file at the same QEMU command line. A stream:
  -incoming "exec:cat FILE"
A mapped-ram file, from QEMU 9.0 on: -incoming defer, and in QMP
  migrate-set-capabilities, with mapped-ram on
  migrate-incoming {"uri": "file:FILE"}
Either: wherry send FILE URI`,
    )
    .action((uri: string, file: string, flags: ReceiveFlags) =>
      receiveUntilSignal(uri, file, flags),
    );
}

async function receiveUntilSignal(
  uri: string,
  path: string,
  { json: isJson = false, switchoverAck = false, tlsCreds, format, ...flags }: ReceiveFlags,
): Promise<void> {
  const interrupt = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    const exitCode = signal === 'SIGINT' ? 130 : 143;
    interrupt.abort(new CliError(`Interrupted: Nothing was kept in ${path}`, exitCode));
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const tls = tlsCreds === undefined ? undefined : await loadTls(tlsCreds);
    const report = await receive(uri, path, {
      signal: interrupt.signal,
      isQuiet: isJson,
      tls,
      format,
      multifdChannels: flags.multifd,
      multifdCompression: flags.multifdCompression,
      acknowledgesSwitchover: switchoverAck,
    });
    console.log(isJson ? JSON.stringify(report) : escapeControls(formatReceiveReport(report)));
  } catch (error) {
    if (isJson && error instanceof ReceiveFailure) {
      console.log(JSON.stringify({ status: 'failed', error: error.diagnosis }));
    }
    throw error;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

async function loadTls(dir: string): Promise<TlsCredentials> {
  try {
    return await loadTlsCredentials({ dir, endpoint: 'server' });
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw new CliError(error.message, 2);
  }
}

/** Says that the migration failed; the message holds the diagnosis. */
class ReceiveFailure extends CliError {
  readonly diagnosis: Diagnosis;

  /** @param result what became of the guest */
  constructor(result: string, diagnosis: Diagnosis) {
    super(escapeControls(`${result}: ${formatDiagnosis(diagnosis)}`), 1);
    this.diagnosis = diagnosis;
  }
}

/** How to receive. */
export interface ReceiveOptions {
  /** Ends it; its reason is what is thrown. */
  readonly signal?: AbortSignal;
  /** Takes TLS connections alone. */
  readonly tls?: TlsCredentials | undefined;
  /** Whether to leave out the progress. */
  readonly isQuiet?: boolean;
  /** How to keep the guest (default `mapped-ram`). */
  readonly format?: Format;
  /** Whether to acknowledge the switchover: the source has `switchover-ack` on. */
  readonly acknowledgesSwitchover?: boolean;
  /** How many multifd channels the source has, where it has some. */
  readonly multifdChannels?: number | undefined;
  readonly multifdCompression?: MultifdCompression;
  /** Hears of the URI that was really bound. */
  readonly onListening?: (uri: string) => void;
}

/**
 * Listens, receives one migration and keeps its stream in a file.
 *
 * @throws CliError 2 when it cannot listen or write there; 1 when the migration failed: nothing is left of it
 */
export async function receive(
  uri: string,
  path: string,
  options: ReceiveOptions = {},
): Promise<ReceiveReport> {
  const file = await KeptFile.create(path);
  const pages = options.format === 'stream' ? await KeptFile.create(`${path}.pages`) : file;
  const signal = options.signal ?? new AbortController().signal;
  const sink =
    pages === file ? new MappedRamWriter(file.fd) : new StreamWriter(pages, file, signal);
  try {
    await using listener = await openListener(uri, options);
    process.stderr.write(`Listening on ${listener.uri}\n`);
    options.onListening?.(listener.uri);
    const transport = await listener
      .accept({ signal: options.signal })
      .catch(rethrow(options, path));
    const startMs = performance.now();
    const done = new AbortController();
    const multifd =
      options.multifdChannels === undefined
        ? undefined
        : new MultifdChannels(options.multifdChannels, options.multifdCompression ?? 'none', sink);
    const extra = new ExtraConnections(listener, done.signal, multifd);
    let watched: Promise<void> = Promise.resolve();
    const receiver = new StreamReceiver(transport, sink, {
      beforeEnd: async () => {
        await extra.settle();
        await Promise.race([watched, setImmediate()]);
      },
      signal: options.signal,
      acknowledgesSwitchover: options.acknowledgesSwitchover ?? false,
      multifd,
      reconnect: (why) => {
        process.stderr.write(paused(listener.uri, why));
        return extra.next();
      },
    });
    const onAbort = (): void => {
      receiver.destroy(options.signal?.reason as Error);
      done.abort(options.signal?.reason);
    };
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const progress = options.isQuiet ? undefined : new ReceiveProgress(receiver, process.stderr);
    try {
      watched = extra.watch(() => receiver.isPostcopy);
      watched.catch((error: Error) => receiver.destroy(error));
      await receiver.receive();
      await file.keep();
    } catch (error) {
      if (receiver.isRunning) await pages.leave();
      throw failureOf(error, receiver, options, file.path, pages.temporaryPath);
    } finally {
      progress?.stop();
      done.abort();
      options.signal?.removeEventListener('abort', onAbort);
      receiver.destroy();
    }
    return reportOf(receiver, path, performance.now() - startMs);
  } finally {
    await file.discard();
    await pages.discard();
  }
}

function paused(uri: string, why: Error): string {
  return `Paused: the connection was lost (${why.message}). At the source, query-migrate says postcopy-paused: continue with migrate to ${uri} and "resume": true.\n`;
}

/** @throws InvalidArgumentError */
function parseCount(text: string): number {
  if (/^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 255) return Number(text);
  throw new InvalidArgumentError('There are 1 to 255 channels.');
}

async function openListener(
  uri: string,
  { signal, tls }: ReceiveOptions,
): Promise<Listener & AsyncDisposable> {
  try {
    const listener = await listen(uri, { signal, tls });
    return { ...listener, [Symbol.asyncDispose]: () => listener.close() };
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw new CliError(error.message, 2);
  }
}

function rethrow(options: ReceiveOptions, path: string): (error: unknown) => never {
  return (error) => {
    if (options.signal?.aborted === true) throw options.signal.reason;
    throw toFailure(error, [], `Nothing was kept in ${path}`);
  };
}

function failureOf(
  error: unknown,
  receiver: StreamReceiver,
  options: ReceiveOptions,
  path: string,
  temporaryPath: string,
): unknown {
  const result = receiver.isRunning
    ? `The source has given its guest away, and what came of it is in ${temporaryPath}`
    : `Nothing was kept in ${path}`;
  if (options.signal?.aborted !== true) return toFailure(error, receiver.walk.path, result);
  const { exitCode } = options.signal.reason as CliError;
  return new CliError(`Interrupted: ${result}`, exitCode);
}

function toFailure(error: unknown, where: readonly string[], result: string): unknown {
  if (error instanceof WherryError) return new ReceiveFailure(result, diagnose(error, where));
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof CliError || code === undefined) return error;
  const message = `The file cannot be written: ${(error as Error).message}`;
  return new ReceiveFailure(result, { code, message, path: [], likely: likelyOf(code) });
}

function likelyOf(code: string): string {
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? 'No space is left: free some or choose another folder; without a return path the source believes that it is done'
    : 'Look at the disk and the permissions of the folder';
}
