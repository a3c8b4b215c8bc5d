import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '@wherry/qmp';
import { connectQmpSocket } from '../../conformance/qmp-socket.ts';
import { SimulatedHost } from '../../conformance/simulated-host.ts';
import { judge, type Measurement, summarize } from './measurement.ts';

/** A fault may take so many times as long as a ping of the same bytes. */
const MOST_PINGS = 3;
const MIB = 2 ** 20;
/** REQ_PAGES: type, length, start, length. */
const REQUEST_BYTES = 16;
const RECORD_HEAD_BYTES = 8;

/** Round trips of faults in postcopy, beside pings of the same bytes. */
interface FaultCase {
  readonly name: string;
  readonly pageBytes: number;
  readonly ramBytes: number;
  /** How many faults and pings count; a tenth more come before, while the code warms up. */
  readonly turns: number;
}

/** Lists the cases: a background that is held back, so that the guest waits for most of its pages. */
export function faultCases(): { readonly name: string; measure(): Promise<Measurement[]> }[] {
  const sizes = [
    { size: '4 KiB', pageBytes: 4096, ramBytes: 256 * MIB, turns: 30_000 },
    { size: '2 MiB', pageBytes: 2 * MIB, ramBytes: 1024 * MIB, turns: 300 },
  ];
  return sizes.map(({ size, ...rest }) => {
    const name = `fault in postcopy, ${size}`;
    return { name, measure: () => measureFaults({ ...rest, name }) };
  });
}

/**
 * Measures how long vCPUs wait for pages with `postcopy-preempt`, tcp between two processes.
 *
 * @returns two rows: the median and the 99th percentile
 */
async function measureFaults(each: FaultCase): Promise<Measurement[]> {
  const answerBytes = (each.pageBytes / 4096) * (4096 + RECORD_HEAD_BYTES);
  const pings = await ping(answerBytes, each.turns);
  const faults = await postcopy(each);
  const row = (percentile: 'p50' | 'p99', share: number): Measurement => {
    const pingUs = at(pings, share);
    const faultUs = percentileUs(faults, share);
    const ratio = pingUs / faultUs;
    const mark = Math.round(100 / MOST_PINGS) / 100;
    return {
      name: `${each.name}, ${percentile}`,
      figure: summarize([faultUs], 'µs'),
      limit: { ...summarize([pingUs], 'µs'), what: 'a ping of the same bytes over tcp' },
      ratio,
      mark,
      verdict: judge(ratio, mark),
      note: `${total(faults)} faults`,
    };
  };
  return [row('p50', 0.5), row('p99', 0.99)];
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

/** Sends requests to another process, which answers each. @returns round trips in µs, sorted */
async function ping(answerBytes: number, count: number): Promise<number[]> {
  const echo = `
    require('net').createServer({ noDelay: true }, (socket) => {
      const answer = Buffer.alloc(${answerBytes}, 7);
      let got = 0;
      socket.on('error', () => {}).on('data', (chunk) => {
        for (got += chunk.length; got >= ${REQUEST_BYTES}; got -= ${REQUEST_BYTES}) socket.write(answer);
      });
    }).listen(0, '127.0.0.1', function () { console.log(this.address().port); });`;
  const child: ChildProcess = spawn(process.execPath, ['-e', echo], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const [port] = await once(child.stdout!, 'data');
    const socket = connect({ host: '127.0.0.1', port: Number(String(port)), noDelay: true });
    await once(socket, 'connect');
    const times: number[] = [];
    let got = 0;
    let answered = (): void => {};
    socket.on('data', (chunk) => {
      got += chunk.length;
      if (got === answerBytes) answered();
    });
    for (let turn = 0; turn < count + count / 10; turn++) {
      const startedAt = performance.now();
      got = 0;
      const whole = new Promise<void>((resolve) => {
        answered = resolve;
      });
      socket.write(Buffer.alloc(REQUEST_BYTES));
      await whole;
      if (turn >= count / 10) times.push((performance.now() - startedAt) * 1000); // warm
    }
    socket.destroy();
    return times.sort((a, b) => a - b);
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

/** Faults that took from one time to another. */
interface Bucket {
  readonly fromMs: number;
  readonly toMs: number;
  readonly count: number;
}

/** Finds a percentile, between the ends of its bucket as if the bucket's faults were spread evenly. */
function percentileUs(buckets: readonly Bucket[], share: number): number {
  let left = total(buckets) * share;
  for (const { fromMs, toMs, count } of buckets) {
    if (left <= count) return (fromMs + ((toMs - fromMs) * left) / count) * 1000;
    left -= count;
  }
  throw new Error('the guest waited for no page');
}

/** Takes the faults `before` from those since. */
function since(before: readonly Bucket[], after: readonly Bucket[]): Bucket[] {
  return after.map((bucket) => {
    const { count = 0 } = before.find(({ fromMs }) => fromMs === bucket.fromMs) ?? {};
    return { ...bucket, count: bucket.count - count };
  });
}

function total(buckets: readonly Bucket[]): number {
  return buckets.reduce((sum, { count }) => sum + count, 0);
}

/** Waits until a guest has waited for `count` pages. @returns all its faults so far */
async function faultsOf(host: QmpClient, count: number, everyMs: number): Promise<Bucket[]> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    await sleep(everyMs);
    const { faults } = (await host.execute('x-wherry-guest')) as unknown as {
      faults: { histogram: readonly { 'from-ms': number; 'to-ms': number; count: number }[] };
    };
    const buckets = faults.histogram.map((bucket) => ({
      fromMs: Number(bucket['from-ms']),
      toMs: Number(bucket['to-ms']),
      count: Number(bucket.count),
    }));
    if (total(buckets) >= count) return buckets;
  }
  throw new Error(`the guest did not wait for ${count} pages`);
}

/** Moves a guest whose vCPU touches page after page, and lets no time pass between. */
async function postcopy(each: FaultCase): Promise<Bucket[]> {
  const directory = await mkdtemp(join(tmpdir(), 'wherry-faults-'));
  const path = (name: string): string => join(directory, name);
  const page = each.pageBytes === 4096 ? '4K' : '2M';
  const guest = [
    ...['--ram', `pc.ram=${each.ramBytes},page=${page}`, '--fill', '1'],
    ...['--vcpu', 'random'],
  ];
  try {
    await using _source = await SimulatedHost.start(path('a'), guest);
    await using _destination = await SimulatedHost.start(path('b'), [
      ...guest,
      ...['--incoming', 'defer'],
    ]);
    const source = await QmpClient.connect(await connectQmpSocket(path('a')));
    const destination = await QmpClient.connect(await connectQmpSocket(path('b')));
    try {
      for (const host of [source, destination]) {
        await host.execute('migrate-set-capabilities', {
          capabilities: [
            { capability: 'postcopy-ram', state: true },
            { capability: 'postcopy-preempt', state: true },
          ],
        });
      }
      await source.execute('migrate-set-parameters', {
        'max-bandwidth': 1_000_000,
        'max-postcopy-bandwidth': 1_000_000,
      });
      await destination.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
      const [address] = (await destination.execute('query-migrate'))['socket-address'] ?? [];
      if (address?.type !== 'inet') throw new Error('the destination names no port');
      await source.execute('migrate', { uri: `tcp:127.0.0.1:${address.port}` });
      await until(source, 'active');
      await source.execute('migrate-start-postcopy');
      await until(destination, 'postcopy-active');
      const warm = await faultsOf(destination, each.turns / 10, 10);
      // A look at them is in the way of the next: there is one, or a few.
      return since(warm, await faultsOf(destination, total(warm) + each.turns, 500));
    } finally {
      source.close();
      destination.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function until(host: QmpClient, status: string): Promise<void> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    const info = await host.execute('query-migrate');
    if (info.status === status) return;
    await sleep(10);
  }
  throw new Error(`the migration did not become ${status}`);
}
