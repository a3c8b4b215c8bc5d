import { readFileSync } from 'node:fs';
import { judge, type Measurement, summarize } from './measurement.ts';
import { type MigrationCase, migrate, wherryHosts } from './migration-cases.ts';
import type { Guest, Host } from './migration-run.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
/** What a destination may use beside its guest's RAM. */
const OVERHEAD_BYTES = 150 * MiB;
/** A page of a large guest may cost a fifth more than one of a small guest. */
const LARGE_MARK = 1 / 1.2;
const LARGE_BYTES = 12 * GiB;

/** Lists the cases of what the size of a guest costs; they stand beside themselves. */
export function guestSizeCases(): MigrationCase[] {
  return [
    ...[256 * MiB, 2 * GiB].map(overheadCase),
    { name: '12 GiB migration, a tenth random pages', measure: measureLarge },
  ];
}

function overheadCase(ramBytes: number): MigrationCase {
  const name = `memory of the destination beside a guest of ${ramBytes / MiB} MiB`;
  const measureOverhead = async (runs: number): Promise<Measurement[]> => {
    const samples: number[] = [];
    for (let run = 0; run < runs; run++) samples.push(await overheadMib(ramBytes));
    const figure = summarize(samples, 'MiB');
    const limit = { ...summarize([OVERHEAD_BYTES / MiB], 'MiB'), what: 'what it may be' };
    const ratio = limit.value / figure.value;
    return [{ name, figure, limit, ratio, mark: 1, verdict: judge(ratio, 1) }];
  };
  return { name, measure: measureOverhead };
}

/** Migrates random pages. @returns the destination's peak of resident memory less the guest's RAM */
async function overheadMib(ramBytes: number): Promise<number> {
  const guest: Guest = { ramBytes, content: 'random' };
  const hosts = wherryHosts(guest);
  let peakBytes = 0;
  const check = async (source: Host, destination: Host): Promise<void> => {
    const status = readFileSync(`/proc/${destination.pid}/status`, 'utf8');
    peakBytes = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
    await hosts.check(source, destination);
  };
  await migrate({ ...hosts, check }, guest);
  return (peakBytes - ramBytes) / MiB;
}

/** Migrates a guest of 12 GiB and one of 2 GiB, one page of ten random. */
async function measureLarge(runs: number): Promise<Measurement[]> {
  const large: number[] = [];
  const small: number[] = [];
  await nsPerPage(LARGE_BYTES); // takes memory that the machine has not used for long, which costs the most
  for (let run = 0; run < Math.min(runs, 2); run++) {
    large.push(await nsPerPage(LARGE_BYTES));
    small.push(await nsPerPage(2 * GiB));
  }
  const figure = summarize(large, 'ns');
  const limit = { ...summarize(small, 'ns'), what: 'a page of a guest of 2 GiB' };
  const ratio = limit.value / figure.value;
  const name = '12 GiB migration, a tenth random pages, a page';
  return [{ name, figure, limit, ratio, mark: LARGE_MARK, verdict: judge(ratio, LARGE_MARK) }];
}

async function nsPerPage(ramBytes: number): Promise<number> {
  const guest: Guest = { ramBytes, content: 'mixed' };
  const { totalMs } = await migrate(wherryHosts(guest), guest);
  return (totalMs * 1e6) / (ramBytes / 4096);
}
