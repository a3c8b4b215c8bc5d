import { formatTable } from '../inspect/table.ts';
import { formatBytes, formatCount, formatMs } from '../sizes.ts';

/** What came of a send, as `--json` prints it. */
export interface SendReport {
  readonly status: 'completed';
  readonly file: string;
  readonly mode: 'precopy' | 'postcopy';
  readonly machineType: string | null;
  /** What the stream was unpacked from. */
  readonly packed?: string;
  /** Bytes of the whole stream. */
  readonly streamBytes: number;
  /** Target pages sent, by kind. */
  readonly normalPages: number;
  readonly zeroPages: number;
  /** Requests of the destination's guest. */
  readonly requests: number;
  /** From the command's start until it knew where each page is. */
  readonly indexMs: number;
  /** In postcopy, from the command's start until the devices were sent and the guest could run. */
  readonly handedOverMs: number | undefined;
  /** Whether the destination said that it has the guest. */
  readonly confirmed: boolean;
  readonly timeMs: number;
}

/** Formats a report as a small table. */
export function formatSendReport(report: SendReport): string {
  const { streamBytes, normalPages, zeroPages, timeMs, indexMs, handedOverMs } = report;
  const rate = streamBytes / 2 ** 20 / ((timeMs - indexMs) / 1000);
  const rows = [
    ['machine type', report.machineType ?? 'not stated'],
    ['mode', report.mode],
    ['stream', `${formatBytes(streamBytes)} (${formatCount(streamBytes)} bytes)`],
    ['pages: full, zero', `${formatCount(normalPages)}, ${formatCount(zeroPages)}`],
    ...(report.mode === 'postcopy' ? [['requests', formatCount(report.requests)]] : []),
    ['file read', formatMs(indexMs)],
    ...(handedOverMs === undefined ? [] : [['guest handed over', formatMs(handedOverMs)]]),
    ['time', `${formatMs(timeMs)}${Number.isFinite(rate) ? `, ${rate.toFixed(0)} MiB/s` : ''}`],
    ['confirmed', report.confirmed ? 'yes' : 'no return path: look at the destination'],
  ];
  return formatTable(['status', report.status], rows);
}
