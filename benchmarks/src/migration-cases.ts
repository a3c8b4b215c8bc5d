import { findPeer, isPeer, type Peer } from '../../conformance/peers/peers.ts';
import { judge, type Measurement, median, summarize } from './measurement.ts';
import { type Guest, type Host, type MigrationTimes, runMigration } from './migration-run.ts';
import { startQemu, startRandomQemu } from './qemu-hosts.ts';
import { checkHandover, startWherryHost } from './wherry-hosts.ts';

const GiB = 2 ** 30;
const RAM_BYTES = 2 * GiB;
const RELEASE = '7.2';
const MULTIFD_CHANNELS = 2;
const MULTIFD_MARK = 1.5;

/** Whole migrations, each run with new processes on both sides. */
export interface MigrationCase {
  readonly name: string;
  /** @param runs how often each is migrated */
  measure(runs: number): Promise<Measurement[]>;
}

/** What is compared with QEMU: a figure of a migration, and how many times as good it is to be. */
interface Compared {
  readonly part: string;
  readonly of: (times: MigrationTimes) => number;
  readonly mark?: number;
}

const wallTime: Compared = { part: 'wall time', of: ({ wallMs }) => wallMs };
const totalTime = (mark?: number): Compared => ({
  part: 'total-time',
  of: ({ totalMs }) => totalMs,
  ...(mark !== undefined && { mark }),
});
const downtime: Compared = { part: 'downtime', of: ({ downtimeMs }) => downtimeMs, mark: 1 };

/** Lists the whole migrations that stand beside the same between two QEMUs. */
export function migrationCases(): MigrationCase[] {
  const random: Guest = { ramBytes: RAM_BYTES, content: 'random' };
  const zero: Guest = { ramBytes: RAM_BYTES, content: 'zero' };
  return [
    besideQemu('random pages', random, [totalTime(3), wallTime]),
    besideQemu('random pages, multifd', random, [totalTime(MULTIFD_MARK)], MULTIFD_CHANNELS),
    besideQemu('random pages, memory touched before', { ...random, preallocated: true }, [
      totalTime(),
    ]),
    besideQemu('zero pages', zero, [totalTime(10), wallTime]),
    besideQemu('idle, 1 MB of device state', { ...zero, idle: true }, [downtime]),
  ];
}

function besideQemu(
  title: string,
  guest: Guest,
  compared: readonly Compared[],
  channels = 0,
): MigrationCase {
  const name = `${guest.ramBytes / GiB} GiB migration, ${title}`;
  return { name, measure: (runs) => measureBesideQemu(name, guest, compared, channels, runs) };
}

async function measureBesideQemu(
  name: string,
  guest: Guest,
  compared: readonly Compared[],
  channels: number,
  runs: number,
): Promise<Measurement[]> {
  const found = findPeer(RELEASE);
  const peer = isPeer(found) ? found : undefined;
  const missing = isPeer(found) ? undefined : `no QEMU ${RELEASE}: ${found.missing}`;
  const wherry: MigrationTimes[] = [];
  const qemu: MigrationTimes[] = [];
  const isJudged = compared.some(({ mark }) => mark !== undefined);
  for (let run = 0; run < (isJudged ? runs : Math.min(runs, 2)); run++) {
    wherry.push(await migrate(wherryHosts(guest), guest, channels));
    if (peer !== undefined) qemu.push(await migrate(qemuHosts(peer, guest), guest, channels));
  }
  const downtimeOf = (times: readonly MigrationTimes[]): number => median(times.map(downtime.of));
  return compared.map(({ part, of, mark }) => {
    const figure = wherry.length === 0 ? undefined : summarize(wherry.map(of), 'ms');
    const beside = qemu.length === 0 ? undefined : summarize(qemu.map(of), 'ms');
    const ratio = figure && beside && beside.value / figure.value;
    return {
      name: `${name}, ${part}`,
      figure,
      limit: beside && { ...beside, what: `QEMU ${peer?.version} to QEMU` },
      ratio,
      mark,
      verdict: judge(ratio, mark),
      note: missing ?? `downtime ${downtimeOf(wherry)} ms, QEMU's ${downtimeOf(qemu)} ms`,
    };
  });
}

/** Both ends of a migration, and what is looked at after it. */
export interface Hosts {
  source(): Promise<Host>;
  destination(): Promise<Host>;
  check(source: Host, destination: Host): Promise<void>;
}

/** Makes both ends of a migration between two Wherry hosts, whose RAM is compared afterwards. */
export function wherryHosts(guest: Guest): Hosts {
  return {
    source: () => startWherryHost(guest, false),
    destination: () => startWherryHost(guest, true),
    check: guest.idle ? checkRuns : checkHandover,
  };
}

function qemuHosts(peer: Peer, guest: Guest): Hosts {
  return {
    source: () =>
      guest.content === 'random' ? startRandomQemu(peer, guest) : startQemu(peer, guest, false),
    destination: () => startQemu(peer, guest, true),
    check: guest.idle ? checkRuns : async () => {}, // QEMU is not what is tested
  };
}

/** Checks that the guest runs there. */
async function checkRuns(_: Host, destination: Host): Promise<void> {
  const { status } = await destination.qmp.execute('query-status');
  if (status !== 'running') throw new Error(`the guest is ${status} at the destination`);
}

/** Migrates once, checks what came of it, and ends both hosts. */
export async function migrate(hosts: Hosts, guest: Guest, channels = 0): Promise<MigrationTimes> {
  const started: Host[] = [];
  try {
    const source = await hosts.source();
    started.push(source);
    const destination = await hosts.destination();
    started.push(destination);
    const times = await runMigration(source, destination, channels);
    checkPages(times, guest);
    await hosts.check(source, destination);
    return times;
  } finally {
    await Promise.all(started.map((host) => host.close()));
  }
}

/** Checks that (nearly) all pages are of the kind that is to be measured. */
function checkPages({ normalPages, zeroPages }: MigrationTimes, guest: Guest): void {
  const pages = guest.ramBytes / 4096;
  const found = { random: normalPages, zero: zeroPages, mixed: normalPages * 10 }[guest.content];
  if (found < pages * 0.99) {
    throw new Error(
      `${normalPages} normal and ${zeroPages} zero pages crossed, not ${guest.content}`,
    );
  }
}
