import { type Diagnosis, diagnose } from '../inspect/diagnosis.ts';
import { formatTable } from '../inspect/table.ts';
import { formatBytes, formatCount, formatMs } from '../sizes.ts';
import { type Link, recordName } from './link.ts';
import type { Recording } from './recording.ts';
import type { Relay } from './relay.ts';

/**
 * What became of the migration: `failed` when the destination said so, `cut` by a fault, `broken` off by
 * one of the sides, `unread` where TLS hides it, `none` when no stream came.
 */
export type RelayStatus = 'completed' | 'failed' | 'cut' | 'broken' | 'unread' | 'none';

/** One connection, as `--json` prints it. */
export interface ChannelReport {
  readonly name: string;
  readonly kind: Link['kind'];
  /** Bytes that the destination was given, and the source. */
  readonly forwardBytes: number;
  readonly backwardBytes: number;
  readonly timeMs: number;
  /** `closed`, `cut`, `dropped`, or the error that ended it. */
  readonly end: string;
  /** The phase of the stream that was reached last. */
  readonly phase?: string;
  /** Messages of the return path, by kind. */
  readonly messages?: Readonly<Record<string, number>>;
  /** What the destination said at the end. */
  readonly shutStatus?: number;
  /** Why it was not read to its end; it was passed on all the same. */
  readonly problem?: Diagnosis;
  /** Where its bytes were recorded. */
  readonly files?: readonly string[];
}

/** What came of a relay, as `--json` prints it. */
export interface RelayReport {
  readonly status: RelayStatus;
  readonly machineType: string | null;
  readonly pages: Readonly<Record<'page' | 'zero' | 'xbzrle' | 'compress', number>>;
  readonly devices: number;
  readonly channels: readonly ChannelReport[];
  /** Faults that happened. */
  readonly faults: readonly {
    readonly kind: 'cut' | 'corrupt';
    readonly at: string;
    readonly channel: string;
    readonly offset: number;
  }[];
  /** Faults whose place never passed. */
  readonly missed: readonly { readonly kind: 'cut' | 'corrupt'; readonly at: string }[];
  /** Why the destination could not be reached, or the recording is not whole. */
  readonly problems: readonly string[];
}

/** Sums up a relay. */
export function reportOf(relay: Relay, recording: Recording | undefined): RelayReport {
  const pages = { page: 0, zero: 0, xbzrle: 0, compress: 0 };
  let machineType: string | null = null;
  let devices = 0;
  for (const { source } of relay.links) {
    const { model } = source;
    machineType ??= model?.configuration?.machineType ?? null;
    devices += model?.devices.length ?? 0;
    for (const block of model?.ram?.blocks ?? []) {
      for (const kind of ['page', 'zero', 'xbzrle', 'compress'] as const) {
        pages[kind] += block.pages[kind];
      }
    }
  }
  const unwritten = recording?.problem;
  return {
    status: statusOf(relay.links),
    machineType,
    pages,
    devices,
    channels: relay.links.map((link) => channelReport(link, recording)),
    faults: relay.faults.injected.map(({ fault, channel, offset }) => {
      return { kind: fault.kind, at: fault.text, channel, offset };
    }),
    missed: relay.faults.waiting.map(({ kind, text }) => ({ kind, at: text })),
    problems: [
      ...(relay.unreachable === undefined ? [] : [relay.unreachable.message]),
      ...(unwritten === undefined ? [] : [`The recording is not whole: ${unwritten.message}`]),
    ],
  };
}

function statusOf(links: readonly Link[]): RelayStatus {
  const main = links.findLast(({ isMain }) => isMain);
  if (main === undefined) return links.some(({ kind }) => kind === 'tls') ? 'unread' : 'none';
  const { shutStatus, counts } = main.returnPath;
  if (shutStatus !== undefined && shutStatus !== 0) return 'failed';
  if (main.end === 'cut') return 'cut';
  if (!main.source.reached('end')) return 'broken';
  // Without a return path nothing but the end of the stream tells.
  const hasReturnPath = Object.keys(counts).length > 0;
  return shutStatus === 0 || !hasReturnPath ? 'completed' : 'broken';
}

function channelReport(link: Link, recording: Recording | undefined): ChannelReport {
  const { end = 'dropped', problem, forwardBytes, backwardBytes, name = 'silent' } = link;
  const { counts, shutStatus } = link.returnPath;
  const { phase, path } = link.source;
  const files = [
    ...(forwardBytes > 0 ? [recordName(name, '')] : []),
    ...(backwardBytes > 0 ? [recordName(name, 'return-path')] : []),
  ].map((file) => recording?.pathOf(file) ?? '');
  return {
    name,
    kind: link.kind,
    forwardBytes,
    backwardBytes,
    timeMs: Math.round(link.timeMs),
    end: typeof end === 'string' ? end : end.message,
    ...(phase === undefined ? {} : { phase }),
    ...(link.isMain ? { messages: counts } : {}),
    ...(shutStatus === undefined ? {} : { shutStatus }),
    ...(problem === undefined ? {} : { problem: diagnose(problem, path) }),
    ...(recording === undefined ? {} : { files }),
  };
}

/** Formats a report as tables. */
export function formatRelayReport(report: RelayReport): string {
  const { pages } = report;
  const rows = [
    ['machine type', report.machineType ?? 'not stated'],
    ['pages: full, zero', `${formatCount(pages.page)}, ${formatCount(pages.zero)}`],
    ['pages: xbzrle, compress', `${formatCount(pages.xbzrle)}, ${formatCount(pages.compress)}`],
    ['device sections', `${report.devices}`],
    ...report.faults.map(({ kind, at, channel, offset }) => {
      return [`${kind} ${at}`, `${channel}, offset ${formatCount(offset)}`];
    }),
    ...report.missed.map(({ kind, at }) => [`${kind} ${at}`, 'that place never passed']),
  ];
  const channels = report.channels.map((channel) => [
    channel.name,
    formatBytes(channel.forwardBytes),
    formatBytes(channel.backwardBytes),
    channel.phase ?? '',
    formatMs(channel.timeMs),
  ]);
  const texts = [formatTable(['status', report.status], rows)];
  if (channels.length > 0) {
    texts.push(formatTable(['channel', 'to destination', 'to source', 'phase', 'time'], channels));
  }
  for (const { name, end, problem, files = [] } of report.channels) {
    if (end !== 'closed' && end !== 'cut') texts.push(`${name}: ${end}`);
    if (problem !== undefined) {
      const where = problem.offset === undefined ? '' : ` at offset ${problem.offset}`;
      texts.push(`${name} was passed on unread from here: ${problem.message}${where}`);
    }
    for (const file of files) texts.push(`${name}: kept in ${file}`);
  }
  return texts.join('\n');
}
