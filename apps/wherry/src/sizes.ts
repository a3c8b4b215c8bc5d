import { InvalidArgumentError } from 'commander';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** Parses a number of bytes with QEMU's suffixes: 4096, 4K, 512M, 2G. @throws InvalidArgumentError */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$/i.exec(text);
  const bytes =
    match === null ? Number.NaN : Number(match[1]) * (UNITS[match[2]!.toUpperCase()] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) {
    throw new InvalidArgumentError(`'${text}' is no size: use bytes or a suffix, as 4K, 512M, 2G.`);
  }
  return bytes;
}

/** Formats bytes for people: 640 MiB, 1.5 GiB. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (value < 1024) return `${round(value)} ${unit}`;
    value /= 1024;
  }
  return `${round(value)} TiB`;
}

function round(value: number): string {
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}

/** Formats a count with thin groups: 163 840. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ' ');
}

/** Formats milliseconds for people: 0.4 ms, 25 ms, 3.21 s. */
export function formatMs(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 10 || Number.isInteger(ms) ? `${ms.toFixed(0)} ms` : `${ms.toFixed(2)} ms`;
}
