import {
  MigrationError,
  MULTIFD_COMPRESSIONS,
  type StoredChannels,
  type StoredGuestPort,
  StoredSource,
  type Transport,
} from '@wherry/migration';
import { TransportError } from '@wherry/transport';
import { Command, Option } from 'commander';
import { CliError } from '../cli-error.ts';
import { escapeControls } from '../inspect/output.ts';
import { openStoredGuest } from '../stored/open-guest.ts';
import { TransferProgress } from '../stored/transfer-progress.ts';
import { wallClock } from '../wall-clock.ts';
import {
  type ChannelOptions,
  checkChannels,
  openChannels,
  parseChannelCount,
  parseUuid,
} from './channels.ts';
import { explainLog, SendFailure } from './failure.ts';
import { addPageSize, checkPageSizes, type PageSizes } from './page-sizes.ts';
import { formatSendReport, type SendReport } from './report.ts';
import { SendTarget, type TargetOptions } from './target.ts';

interface SendOptions extends TargetOptions, ChannelOptions {
  readonly postcopy?: boolean;
  readonly preempt?: boolean;
  readonly recover?: boolean;
  readonly pageSize?: PageSizes;
  readonly tlsCreds?: string;
  readonly tlsHostname?: string;
  readonly log?: string;
  readonly json?: boolean;
}

/** Makes the command `wherry send`. */
export function sendCommand(): Command {
  return new Command('send')
    .description('put the guest of a file into a waiting QEMU')
    .argument(
      '<file>',
      'a migration stream, a mapped-ram file or a libvirt save image; - for standard input',
    )
    .argument(
      '<uri>',
      'where QEMU waits, as its -incoming names it: tcp:, unix:, exec:, fd:, file:',
    )
    .option('--postcopy', 'let the guest run at once: its pages follow when it touches them')
    .option('--preempt', 'requested pages over a connection of their own; with --postcopy')
    .option('--recover', 'go on with a postcopy that was broken, behind migrate-recover')
    .option(
      '--page-size <block=size>',
      'host pages of a RAM block at the destination, as pc.ram=2M; for postcopy; repeatable',
      addPageSize,
    )
    .addOption(
      new Option('--multifd <channels>', 'multifd, with as many channels as the destination has')
        .argParser(parseChannelCount)
        .conflicts(['postcopy', 'recover']),
    )
    .addOption(
      new Option('--multifd-compression <method>', 'as at the destination')
        .choices(MULTIFD_COMPRESSIONS)
        .default('none'),
    )
    .addOption(
      new Option(
        '--zero-page-detection <place>',
        'where zero pages go with multifd; as the machine type has it unless told',
      ).choices(['legacy', 'multifd']),
    )
    .option('--uuid <uuid>', 'UUID of the guest, which multifd compares', parseUuid)
    .option('--tls-creds <dir>', 'speak TLS: the folder of QEMU’s tls-creds-x509 or tls-creds-psk')
    .option('--tls-hostname <name>', 'the name in QEMU’s certificate, where the URI has another')
    .option('--log <file>', 'QEMU’s log at the destination, to say why it refuses')
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      `
Examples:
  wherry send guest.qevm tcp:192.0.2.7:4444
  wherry send guest.qevm unix:/run/incoming.sock --postcopy

For postcopy the destination needs postcopy-ram: start it with -incoming defer,
then migrate-set-capabilities and migrate-incoming.

Exit codes: 0 the destination has the guest, 1 it has not, 2 wrong usage,
3 a postcopy is paused.`,
    )
    .action((file: string, uri: string, options: SendOptions) => send(file, uri, options));
}

async function send(path: string, uri: string, options: SendOptions): Promise<void> {
  const startMs = performance.now();
  const target = await targetOf(uri, options);
  let source: StoredSource | undefined;
  const interrupt = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    const exitCode = signal === 'SIGINT' ? 130 : 143;
    interrupt.abort(new CliError('Interrupted: the guest is still in the file', exitCode));
    source?.stopWith(new MigrationError('CANCELLED', 'Interrupted'));
  };
  using opened = await openStoredGuest(path, options.json === true);
  const { guest, model } = opened;
  const pageSizes: PageSizes = options.pageSize ?? new Map();
  checkPageSizes(pageSizes, guest.blocks);
  const indexMs = performance.now() - startMs;
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const { transport, multifd } = await connectTo(target, guest, options, path, interrupt.signal);
    const times = { indexMs, handedOverMs: undefined as number | undefined };
    const stored = new StoredSource({
      guest,
      transport,
      clock: wallClock,
      returnPath: target.hasReturnPath,
      postcopy: isPostcopy(options),
      ...(multifd === undefined ? {} : { multifd }),
      ...(options.preempt === true ? { openPreempt: (signal) => target.connect(signal) } : {}),
      hostPageBytes: (block) => pageSizes.get(block) ?? guest.targetPageBytes,
      onStatus: (status) => {
        if (status === 'postcopy-active') times.handedOverMs ??= performance.now() - startMs;
      },
    });
    source = stored;
    const totalPages = stored.progress.owedPages;
    using _ = new TransferProgress(() => {
      if (options.json === true) return undefined;
      const { status, owedPages, requests } = stored.progress;
      return {
        phase: status,
        doneBytes: (totalPages - owedPages) * guest.targetPageBytes,
        totalBytes: totalPages * guest.targetPageBytes,
        notes: options.postcopy === true ? [`${requests} requests`] : [],
      };
    }, process.stderr);
    const status = options.recover === true ? await stored.recover() : await stored.run();
    if (status !== 'completed') {
      if (interrupt.signal.aborted && status === 'failed') throw interrupt.signal.reason;
      const log = options.log === undefined ? undefined : await explainLog(options.log);
      throw new SendFailure(stored, path, log);
    }
    const report: SendReport = {
      ...stored.progress,
      status,
      file: path,
      mode: isPostcopy(options) ? 'postcopy' : 'precopy',
      machineType: model.configuration?.machineType ?? null,
      ...(opened.packed === undefined ? {} : { packed: opened.packed }),
      ...times,
      confirmed: target.hasReturnPath,
      timeMs: performance.now() - startMs,
    };
    console.log(
      options.json === true ? JSON.stringify(report) : escapeControls(formatSendReport(report)),
    );
  } catch (error) {
    if (options.json === true && error instanceof SendFailure) {
      console.log(JSON.stringify(error.report));
    }
    throw error;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** Reads where to send, and says at once what cannot be done there. @throws CliError 2 */
async function targetOf(uri: string, options: SendOptions): Promise<SendTarget> {
  const target = await SendTarget.of(uri, options);
  checkChannels(target, options);
  if (isPostcopy(options) && !target.hasReturnPath) {
    throw new CliError(
      `Postcopy needs a connection of two directions: tcp:, unix:, or fd: of a socket, not ${uri}`,
      2,
    );
  }
  if (options.preempt === true && !isPostcopy(options)) {
    throw new CliError('--preempt is for --postcopy and --recover', 2);
  }
  if (options.preempt === true && !target.takesChannels) {
    throw new CliError(`--preempt needs tcp: or unix:, not ${uri}`, 2);
  }
  return target;
}

/** The connections to a destination. */
interface Connections {
  readonly transport: Transport;
  readonly multifd: StoredChannels | undefined;
}

async function connectTo(
  target: SendTarget,
  guest: StoredGuestPort,
  options: ChannelOptions,
  path: string,
  signal: AbortSignal,
): Promise<Connections> {
  let transport: Transport | undefined;
  try {
    transport = await target.connect(signal); // releases before 8.0 take the first for the main one
    return { transport, multifd: await openChannels(target, guest, options, signal) };
  } catch (error) {
    transport?.destroy(error as Error);
    const isRefused = error instanceof TransportError || error instanceof MigrationError;
    if (!isRefused) throw error;
    throw new SendFailure({ status: 'failed', error }, path, undefined);
  }
}

function isPostcopy({ postcopy, recover }: SendOptions): boolean {
  return postcopy === true || recover === true;
}
