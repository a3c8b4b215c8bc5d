import { MachineError } from './machine-error.ts';

/** The workloads, by their number in memory and in a stream. */
export const WORKLOADS = ['idle', 'sequential', 'random', 'hotset'] as const;

/** How a vCPU chooses the next page that it writes. */
export type Workload = (typeof WORKLOADS)[number];

/** What a vCPU does. */
export interface VcpuSpec {
  readonly workload: Workload;
  /** Pages written a second, a whole number; `Infinity` for as many as it can. */
  readonly pagesPerSecond: number;
  /** Share of its pages that are hot, 0 … 1; default 0.1. */
  readonly hotPages?: number;
  /** Share of the writes of `hotset` that go to hot pages, 0 … 1; default 0.9. */
  readonly hotWrites?: number;
  /** Share of a page that a write changes, 0 … 1, in lines of 64 bytes and at least one; default 1. */
  readonly changes?: number;
}

/** Lines of 64 bytes in a page. */
export const PAGE_LINES = 64;

/** A rate in memory and in a stream that stands for `Infinity`. */
export const UNTHROTTLED = 0xffff_ffff;

/** What a vCPU does, in the units that the workload's module takes. */
export interface WorkloadOptions {
  readonly workload: number;
  /** {@link UNTHROTTLED} for no limit. */
  readonly pagesPerSecond: number;
  /** Of 2^32 - 1. */
  readonly hotWrites: number;
  /** The first lines of a page, which a write changes. */
  readonly changedLines: number;
}

/** Checks a vCPU's options and completes them. @throws MachineError `OPTION_INVALID` */
export function workloadOptions(
  spec: VcpuSpec,
  vcpu: number,
): WorkloadOptions & { readonly hotPages: number } {
  const where = { path: [`vcpus[${vcpu}]`] };
  const workload = WORKLOADS.indexOf(spec.workload);
  if (workload < 0) {
    throw new MachineError('OPTION_INVALID', 'There is no such workload', {
      expected: WORKLOADS.join(', '),
      found: String(spec.workload),
      ...where,
    });
  }
  const { pagesPerSecond: rate } = spec;
  if (rate !== Infinity && !(Number.isInteger(rate) && rate >= 1 && rate < UNTHROTTLED)) {
    throw new MachineError('OPTION_INVALID', 'pagesPerSecond is out of range', {
      expected: `a whole number from 1 to ${UNTHROTTLED - 1}, or Infinity`,
      found: String(rate),
      ...where,
    });
  }
  return {
    workload,
    pagesPerSecond: rate === Infinity ? UNTHROTTLED : rate,
    hotPages: share('hotPages', spec.hotPages ?? 0.1, vcpu),
    hotWrites: Math.round(share('hotWrites', spec.hotWrites ?? 0.9, vcpu) * 0xffff_ffff),
    changedLines: Math.max(1, Math.round(share('changes', spec.changes ?? 1, vcpu) * PAGE_LINES)),
  };
}

/** Checks a share. @throws MachineError `OPTION_INVALID` */
export function share(option: string, value: number, vcpu?: number): number {
  if (value >= 0 && value <= 1) return value;
  throw new MachineError('OPTION_INVALID', `${option} is out of range`, {
    expected: '0 to 1',
    found: String(value),
    path: vcpu === undefined ? [] : [`vcpus[${vcpu}]`],
  });
}
