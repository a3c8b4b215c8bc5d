import { WherryError } from '@wherry/bytes';
import { type Listener, listen, TransportError } from '@wherry/transport';
import { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from '../inspect/diagnosis.ts';
import { escapeControls } from '../inspect/output.ts';
import { watchForChannels } from './extra-connections.ts';
import { KeptFile } from './kept-file.ts';
import { ReceiveProgress } from './progress.ts';
import { StreamReceiver } from './receive-stream.ts';
import { formatReceiveReport, type ReceiveReport, reportOf } from './report.ts';

/** Makes the command `wherry receive`. */
export function receiveCommand(): Command {
  return new Command('receive')
    .description('receive a precopy migration from QEMU and keep its stream in a file')
    .argument('<uri>', 'where to listen: tcp:HOST:PORT (port 0 takes a free one) or unix:PATH')
    .argument('<file>', 'the file to keep the stream in; it appears when the stream is whole')
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      '\nLoad the file with the same QEMU command line and -incoming "exec:cat FILE".',
    )
    .action((uri: string, file: string, options: { readonly json?: boolean }) =>
      receiveUntilSignal(uri, file, options.json === true),
    );
}

async function receiveUntilSignal(uri: string, path: string, isJson: boolean): Promise<void> {
  const interrupt = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    const exitCode = signal === 'SIGINT' ? 130 : 143;
    interrupt.abort(new CliError(`Interrupted: nothing was kept in ${path}`, exitCode));
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const report = await receive(uri, path, { signal: interrupt.signal, isQuiet: isJson });
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

/** Says that the migration failed; the message holds the diagnosis. */
class ReceiveFailure extends CliError {
  readonly diagnosis: Diagnosis;

  constructor(path: string, diagnosis: Diagnosis) {
    super(escapeControls(`Nothing was kept in ${path}: ${formatDiagnosis(diagnosis)}`), 1);
    this.diagnosis = diagnosis;
  }
}

/** How to receive. */
export interface ReceiveOptions {
  /** Ends it; its reason is what is thrown. */
  readonly signal?: AbortSignal;
  /** Whether to leave out the progress. */
  readonly isQuiet?: boolean;
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
  try {
    await using listener = await openListener(uri, options.signal);
    process.stderr.write(`Listening on ${listener.uri}\n`);
    options.onListening?.(listener.uri);
    const transport = await listener
      .accept({ signal: options.signal })
      .catch(rethrow(options, path));
    const startMs = performance.now();
    const receiver = new StreamReceiver(transport, file, { signal: options.signal });
    const done = new AbortController();
    const onAbort = (): void => transport.destroy(options.signal?.reason as Error);
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const progress = options.isQuiet ? undefined : new ReceiveProgress(receiver, process.stderr);
    try {
      const channels = watchForChannels(listener, done.signal);
      channels.catch((error: Error) => transport.destroy(error));
      await receiver.receive();
      await file.keep();
    } catch (error) {
      throw failureOf(error, receiver, options, path);
    } finally {
      progress?.stop();
      done.abort();
      options.signal?.removeEventListener('abort', onAbort);
      transport.destroy();
    }
    return reportOf(receiver, path, performance.now() - startMs);
  } finally {
    await file.discard();
  }
}

async function openListener(
  uri: string,
  signal: AbortSignal | undefined,
): Promise<Listener & AsyncDisposable> {
  try {
    const listener = await listen(uri, { signal });
    return { ...listener, [Symbol.asyncDispose]: () => listener.close() };
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw new CliError(error.message, 2);
  }
}

function rethrow(options: ReceiveOptions, path: string): (error: unknown) => never {
  return (error) => {
    if (options.signal?.aborted === true) throw options.signal.reason;
    throw toFailure(error, [], path);
  };
}

function failureOf(
  error: unknown,
  receiver: StreamReceiver,
  options: ReceiveOptions,
  path: string,
): unknown {
  if (options.signal?.aborted === true) return options.signal.reason;
  return toFailure(error, receiver.walk.path, path);
}

function toFailure(error: unknown, where: readonly string[], path: string): unknown {
  if (error instanceof WherryError) {
    return new ReceiveFailure(path, diagnose(error, where));
  }
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof CliError || code === undefined) return error;
  const message = `The file cannot be written: ${(error as Error).message}`;
  return new ReceiveFailure(path, { code, message, path: [], likely: likelyOf(code) });
}

function likelyOf(code: string): string {
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? 'No space is left: free some or choose another folder; without a return path the source believes that it is done'
    : 'Look at the disk and the permissions of the folder';
}
