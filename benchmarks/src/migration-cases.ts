import { findPeer, isPeer, type Peer } from '../../conformance/peers/peers.ts';
import { judge, type Measurement, median, summarize } from './measurement.ts';
import { type Host, type MigrationTimes, runMigration } from './migration-run.ts';
import { startQemu, startRandomQemu, warmMemory } from './qemu-hosts.ts';
import { type Content, checkHandover, startWherryHost } from './wherry-hosts.ts';

/** How many times as fast as QEMU a whole migration is to be. */
const MIGRATION_MARK = 2;
const RELEASE = '7.2';

/** A whole migration of a guest of 1 GiB, beside the same between two QEMUs. */
export interface MigrationCase {
  readonly name: string;
  readonly content: Content;
  /** Memory is in the machine's hands right before: see {@link warmMemory}. */
  readonly warm: boolean;
}

/** Lists the whole migrations. */
export function migrationCases(): MigrationCase[] {
  return [
    { name: 'migration, random pages', content: 'random', warm: false },
    { name: 'migration, random pages, warm memory', content: 'random', warm: true },
    { name: 'migration, zero pages', content: 'zero', warm: false },
  ];
}

/**
 * Measures a whole migration, Wherry and QEMU in turns; each run has new processes on both sides, and
 * a destination whose memory is fresh.
 *
 * @returns two rows: the source's `total-time`, which the mark is for, and the wall time
 */
export async function measureMigration(
  { name, content, warm }: MigrationCase,
  ramBytes: number,
  runs: number,
): Promise<Measurement[]> {
  const found = findPeer(RELEASE);
  const peer = isPeer(found) ? found : undefined;
  const missing = isPeer(found) ? undefined : `no QEMU ${RELEASE}: ${found.missing}`;
  const wherry: MigrationTimes[] = [];
  const qemu: MigrationTimes[] = [];
  const beforehand = async (): Promise<void> => {
    if (warm && peer !== undefined) await warmMemory(peer, 3 * ramBytes);
  };
  if (peer !== undefined || !warm) {
    for (let run = 0; run < runs; run++) {
      wherry.push(await migrate(wherryHosts(content, ramBytes), content, ramBytes, beforehand));
      if (peer === undefined) continue;
      qemu.push(await migrate(qemuHosts(peer, content, ramBytes), content, ramBytes, beforehand));
    }
  }
  const row = (part: string, of: (times: MigrationTimes) => number, mark?: number): Measurement => {
    const figure = wherry.length === 0 ? undefined : summarize(wherry.map(of), 'ms');
    const beside = qemu.length === 0 ? undefined : summarize(qemu.map(of), 'ms');
    const ratio = figure && beside && beside.value / figure.value;
    return {
      name: `${ramBytes / 2 ** 30} GiB ${name}, ${part}`,
      figure,
      limit: beside && { ...beside, what: `QEMU ${peer?.version} to QEMU` },
      ratio,
      mark,
      verdict: judge(ratio, mark),
      note: missing ?? `downtime ${downtime(wherry)} ms, QEMU's ${downtime(qemu)} ms`,
    };
  };
  return [
    row('total-time', ({ totalMs }) => totalMs, MIGRATION_MARK),
    row('wall time', ({ wallMs }) => wallMs),
  ];
}

function downtime(times: readonly MigrationTimes[]): number {
  return median(times.map(({ downtimeMs }) => downtimeMs));
}

/** Both ends of a migration, and what tells whether it went right. */
interface Hosts {
  source(): Promise<Host>;
  destination(): Promise<Host>;
  check(source: Host, destination: Host): Promise<void>;
}

function wherryHosts(content: Content, ramBytes: number): Hosts {
  return {
    source: () => startWherryHost(content, ramBytes, false),
    destination: () => startWherryHost(content, ramBytes, true),
    check: checkHandover,
  };
}

function qemuHosts(peer: Peer, content: Content, ramBytes: number): Hosts {
  return {
    source: () =>
      content === 'random' ? startRandomQemu(peer, ramBytes) : startQemu(peer, ramBytes, false),
    destination: () => startQemu(peer, ramBytes, true),
    check: async () => {}, // QEMU is not what is tested
  };
}

async function migrate(
  hosts: Hosts,
  content: Content,
  ramBytes: number,
  beforehand: () => Promise<void>,
): Promise<MigrationTimes> {
  const started: Host[] = [];
  try {
    const source = await hosts.source();
    started.push(source);
    const destination = await hosts.destination();
    started.push(destination);
    await beforehand();
    const times = await runMigration(source, destination);
    checkPages(times, content, ramBytes);
    await hosts.check(source, destination);
    return times;
  } finally {
    await Promise.all(started.map((host) => host.close()));
  }
}

/** Checks that (nearly) all pages are of the kind that is to be measured. */
function checkPages(times: MigrationTimes, content: Content, ramBytes: number): void {
  const { normalPages, zeroPages } = times;
  const found = content === 'random' ? normalPages : zeroPages;
  if (found < (ramBytes / 4096) * 0.99) {
    throw new Error(`${normalPages} normal and ${zeroPages} zero pages crossed, not ${content}`);
  }
}
