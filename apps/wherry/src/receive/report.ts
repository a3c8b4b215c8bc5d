import { formatTable } from '../inspect/table.ts';
import { formatBytes, formatCount, formatMs } from '../sizes.ts';
import type { StreamReceiver } from './receive-stream.ts';

/** What came of a receive, as `--json` prints it. */
export interface ReceiveReport {
  readonly status: 'completed';
  readonly file: string;
  readonly lengthBytes: number;
  readonly machineType: string | null;
  readonly returnPath: boolean;
  readonly pages: Readonly<Record<'page' | 'zero' | 'xbzrle' | 'compress', number>>;
  readonly devices: number;
  readonly vmdesc: boolean;
  /** Bytes behind the end of the stream, which were not kept. */
  readonly trailingBytes: number;
  /** From the connection to the kept file. */
  readonly timeMs: number;
}

/** Sums up a finished receive. */
export function reportOf(receiver: StreamReceiver, file: string, timeMs: number): ReceiveReport {
  const { model } = receiver.walk;
  const pages = { page: 0, zero: 0, xbzrle: 0, compress: 0 };
  for (const block of model.ram?.blocks ?? []) {
    pages.page += block.pages.page;
    pages.zero += block.pages.zero;
    pages.xbzrle += block.pages.xbzrle;
    pages.compress += block.pages.compress;
  }
  return {
    status: 'completed',
    file,
    lengthBytes: receiver.receivedBytes,
    machineType: model.configuration?.machineType ?? null,
    returnPath: receiver.hasReturnPath,
    pages,
    devices: model.devices.length,
    vmdesc: model.vmdesc !== undefined,
    trailingBytes: receiver.trailingBytes,
    timeMs: Math.round(timeMs),
  };
}

/** Formats a report as a small table. */
export function formatReceiveReport(report: ReceiveReport): string {
  const { pages, lengthBytes, timeMs } = report;
  const rate = lengthBytes / 2 ** 20 / (timeMs / 1000);
  const rows = [
    ['machine type', report.machineType ?? 'not stated'],
    ['file', report.file],
    ['stream', `${formatBytes(lengthBytes)} (${formatCount(lengthBytes)} bytes)`],
    ['pages: full, zero', `${formatCount(pages.page)}, ${formatCount(pages.zero)}`],
    ['pages: xbzrle, compress', `${formatCount(pages.xbzrle)}, ${formatCount(pages.compress)}`],
    ['device sections', `${report.devices}${report.vmdesc ? ', with vmdesc' : ', no vmdesc'}`],
    ['return path', report.returnPath ? 'yes' : 'no'],
    ['time', `${formatMs(timeMs)}${Number.isFinite(rate) ? `, ${rate.toFixed(0)} MiB/s` : ''}`],
  ];
  if (report.trailingBytes > 0)
    rows.push(['not kept', `${report.trailingBytes} bytes behind the end`]);
  return formatTable(['status', report.status], rows);
}
