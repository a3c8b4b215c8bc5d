// The parts of postcopy with huge pages, between two host processes: docs/wire/postcopy.md lists them.

import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CraftedSource } from './crafted-source.ts';
import {
  expectGuestRuns,
  incomingPort,
  Lab,
  type RunningHost,
  SMALL_GUEST,
  until,
  untilStatus,
} from './processes.ts';
import { Link, type PostcopyStream, readPostcopyStream, type SentPage } from './recorded-link.ts';

const MIB = 2 ** 20;
const HUGE = 2 * MIB;
const PAGE = 4096;

const lab = new Lab();
const links: Link[] = [];
afterEach(async () => {
  for (const link of links.splice(0)) link.cut();
  await lab.close();
});

/** Turns postcopy on at both sides and connects them by a link that is recorded. */
async function connected(
  onLab: Lab,
  guest: readonly string[],
  bandwidth: number,
): Promise<[RunningHost, RunningHost, Link]> {
  const [source, destination] = await onLab.pair(guest);
  for (const { client } of [source, destination]) {
    await client.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'events', state: true },
        { capability: 'postcopy-ram', state: true },
      ],
    });
  }
  await source.client.execute('migrate-set-parameters', {
    'max-bandwidth': bandwidth,
    'downtime-limit': 1, // it is postcopy that ends it
  });
  await destination.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const link = await Link.open(onLab, await incomingPort(destination));
  links.push(link);
  await source.client.execute('migrate', { uri: link.uri });
  return [source, destination, link];
}

/** Migrates by `wherry migrate --postcopy`. @returns how it ended, and what the destination said */
async function refusedBy(source: readonly string[], destination: readonly string[]) {
  const from = await lab.host(source);
  const to = await lab.host([...destination, '--incoming', 'defer']);
  const { code, stderr } = await lab.run([
    ...['migrate', from.qmp, to.qmp, 'tcp:127.0.0.1:0', '--postcopy', '--max-bandwidth', '1M'],
  ]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^the guest runs on at the source$/m);
  await expectGuestRuns(from);
  return stderr;
}

const WRITER = ['--vcpu', 'random,rate=300'];

describe('1: the summary of RAM page sizes', () => {
  test('is compared, and both values are told', async () => {
    const stderr = await refusedBy(
      [...SMALL_GUEST, ...WRITER],
      ['--ram', 'pc.ram=16M', '--ram', 'hugemem=8M', ...WRITER],
    );
    expect(stderr).toContain('Postcopy needs matching RAM page sizes (s=201000 d=1000)');
  });
});

describe('2: the page size of each block', () => {
  test('is compared where the summary is the same; block and both sizes are told', async () => {
    const stderr = await refusedBy(
      ['--ram', 'pc.ram=16M', '--ram', 'a=8M,page=2M', '--ram', 'b=8M', ...WRITER],
      ['--ram', 'pc.ram=16M', '--ram', 'a=8M', '--ram', 'b=8M,page=2M', ...WRITER],
    );
    expect(stderr).toContain('Mismatched RAM page size a (local) 4096 != 2097152');
    expect(stderr).toMatch(/at offset 0x[0-9a-f]+ .*, in ram > a/);
  });
});

describe('a migration that switches to postcopy when pages were sent and dirtied again', () => {
  const own = new Lab();
  let stream: PostcopyStream;
  let link: Link;
  let destination: RunningHost;

  beforeAll(async () => {
    const vcpus = ['random,rate=2000', 'random,rate=2000', 'sequential,rate=1000'];
    const guest = [...SMALL_GUEST, ...vcpus.flatMap((vcpu) => ['--vcpu', vcpu])];
    let source: RunningHost;
    [source, destination, link] = await connected(own, guest, 40e6);
    links.length = 0; // it lives as long as the lab of its own
    await until(() => source.events.includes('MIGRATION_PASS 2'), 'a second round');
    const { client } = source;
    await client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 4e6 });
    await client.execute('migrate-start-postcopy');
    const isWaitedFor = async (): Promise<boolean> =>
      Number((await destination.client.execute('x-wherry-guest')).faults.count) > 0;
    await until(isWaitedFor, 'a vCPU waits for a page');
    await client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
    await untilStatus(source, 'completed');
    await untilStatus(destination, 'completed');
    stream = readPostcopyStream(link.sent);
  });
  afterAll(async () => {
    link.cut();
    await own.close();
  });

  const key = ({ block, offset }: Pick<SentPage, 'block' | 'offset'>): string =>
    `${block} ${offset / PAGE}`;
  const discarded = (): Set<string> => {
    const pages = new Set<string>();
    for (const { block, ranges } of stream.discards) {
      for (const { start, length } of ranges) {
        for (let at = 0; at < length; at += PAGE) pages.add(key({ block, offset: start + at }));
      }
    }
    return pages;
  };

  test('1, 2: ADVISE sums the page sizes up, the list carries that of the huge block alone', () => {
    expect(stream.advice).toEqual({
      pageSizesSummary: BigInt(HUGE + PAGE),
      targetPageBytes: BigInt(PAGE),
    });
    expect(stream.list).toEqual([
      { name: 'pc.ram', usedBytes: 16 * MIB },
      { name: 'hugemem', usedBytes: 8 * MIB, pageBytes: HUGE },
    ]);
  });

  test('3: discards come 12 ranges a command, of whole host pages', () => {
    const counts = stream.discards.map(({ ranges }) => ranges.length);
    expect(Math.max(...counts)).toBe(12);
    const huge = stream.discards.filter(({ block }) => block === 'hugemem');
    expect(huge).not.toEqual([]);
    for (const { start, length } of huge.flatMap(({ ranges }) => ranges)) {
      expect([start % HUGE, length % HUGE]).toEqual([0, 0]);
    }
  });

  test('3: behind the discards the destination holds exactly what is not sent again', () => {
    const forgotten = discarded();
    const held = new Set(stream.before.map(key).filter((page) => !forgotten.has(page)));
    const again = stream.after.map(key);
    expect(new Set(again).size).toBe(again.length);
    expect(again.filter((page) => held.has(page))).toEqual([]);
    expect(held.size + again.length).toBe((24 * MIB) / PAGE);
  });

  test('4: what is discarded is missing, not zero: the guest waits and sees no other content', async () => {
    const sent = new Set(stream.before.map(key));
    expect([...discarded()].filter((page) => sent.has(page)).length).toBeGreaterThan(0);
    await expectGuestRuns(destination); // which was seen to wait
  });

  test('6, 8, 10: host pages go out whole and in order, though requests come in between', () => {
    const huge = stream.after.flatMap(({ block, offset }, i) =>
      block === 'hugemem' ? [{ i, offset }] : [],
    );
    expect(huge.length).toBeGreaterThan(0);
    expect(huge.length % (HUGE / PAGE)).toBe(0);
    for (let at = 0; at < huge.length; at += HUGE / PAGE) {
      const first = huge[at]!;
      expect(first.offset % HUGE).toBe(0);
      for (let page = 0; page < HUGE / PAGE; page++) {
        const { i, offset } = huge[at + page]!;
        expect([i, offset]).toEqual([first.i + page, first.offset + page * PAGE]);
      }
    }
  });

  test('9: requests are of host pages, each once, however many vCPUs wait for it', () => {
    const lengths: Record<string, number> = { 'pc.ram': PAGE, hugemem: HUGE };
    let named: string | undefined;
    const requests = link.answers.flatMap((message) => {
      if (message.name !== 'req-pages') return [];
      named = message.block ?? named;
      expect(message.length).toBe(lengths[named!]);
      expect(message.start % message.length).toBe(0);
      return [`${named} ${message.start}`];
    });
    expect(requests.length).toBeGreaterThan(0);
    expect(new Set(requests).size).toBe(requests.length);
  });
});

describe('4: discardRange', () => {
  test.each([
    ['beyond the block', 8 * MIB, HUGE, 'the block has 8388608 bytes'],
    ['of a part of a host page', PAGE, HUGE, 'its host pages have 2097152 bytes'],
    ['of a part of a host page at its end', 0, PAGE, 'its host pages have 2097152 bytes'],
  ])('%s is refused by name, with its offset', async (_, start, length, why) => {
    const source = new CraftedSource().begin('hugemem', 8 * MIB, HUGE);
    const host = await source
      .discard('hugemem', start, length)
      .sendTo(lab, ['--ram', 'hugemem=8M,page=2M', '--vcpu', 'idle']);
    const { 'error-desc': error } = await untilStatus(host, 'failed');
    expect(error).toContain(
      `discard of ${length} bytes at ${start} of RAM block hugemem: ${why}, at offset 0x`,
    );
    expect(await host.client.execute('query-status')).toMatchObject({ running: false });
  });
});

describe('6: placement', () => {
  test('makes whole host pages present: what a broken link left is none in part', async () => {
    // One vCPU that goes from page to page, so that some huge pages are asked for last.
    const ram = ['--ram', 'pc.ram=1M', '--ram', 'hugemem=32M,page=2M'];
    const guest = [...ram, '--vcpu', 'sequential,rate=300', '--fill', '1'];
    const [source, destination, link] = await connected(lab, guest, 2e6);
    await source.client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 3e6 });
    await source.client.execute('migrate-start-postcopy');
    await untilStatus(source, 'postcopy-active');
    const { client } = destination;
    await until(
      async () => Number((await client.execute('x-wherry-guest'))['normal-pages-received']) > 2000,
      'pages',
    );
    link.cut();
    await untilStatus(source, 'postcopy-paused');
    await untilStatus(destination, 'postcopy-paused');
    await client.execute('migrate-recover', { uri: 'tcp:127.0.0.1:0' });
    const second = await Link.open(lab, await incomingPort(destination));
    links.push(second);
    await source.client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
    await source.client.execute('migrate', { uri: second.uri, resume: true });
    await untilStatus(source, 'completed');
    await untilStatus(destination, 'completed');
    const bitmap = second.answers.find(
      (message) => message.name === 'recv-bitmap' && message.block === 'hugemem',
    );
    if (bitmap?.name !== 'recv-bitmap') throw new Error('no bitmap of hugemem');
    const present = Array.from({ length: 16 }, (_, i) =>
      bitmap.bitmap.subarray(i * 64, (i + 1) * 64).reduce((sum, byte) => sum + byte, 0),
    );
    expect(present.filter((sum) => sum === 64 * 255).length).toBeGreaterThan(0);
    expect(present.filter((sum) => sum === 0).length).toBeGreaterThan(0);
    expect(present.every((sum) => sum === 0 || sum === 64 * 255)).toBe(true);
    await expectGuestRuns(destination);
  });
});

describe('7: zero huge pages', () => {
  test('are placed without a byte of theirs on the wire', async () => {
    // So much that the first round cannot be over before postcopy is asked for.
    const ram = ['--ram', 'pc.ram=1M', '--ram', 'hugemem=1G,page=2M'];
    const [source, destination, link] = await connected(
      lab,
      [...ram, '--vcpu', 'idle', '--fill', '0'],
      60_000,
    );
    await source.client.execute('migrate-start-postcopy');
    await untilStatus(source, 'completed');
    await untilStatus(destination, 'completed');
    const huge = readPostcopyStream(link.sent).after.filter(({ block }) => block === 'hugemem');
    expect(huge.length).toBeGreaterThanOrEqual(HUGE / PAGE);
    expect(huge.every(({ isZero }) => isZero)).toBe(true);
    expect(link.sent.length).toBeLessThan(4 * MIB);
    const { blocks } = await destination.client.execute('x-wherry-handover', {});
    const there = await source.client.execute('x-wherry-handover', {
      blocks: blocks.map(({ name, dirty }) => ({ name, dirty })),
    });
    expect(there.blocks).toEqual(blocks);
  });
});

describe('8: the target pages of a host page', () => {
  const HUGE_GUEST = ['--ram', 'hugemem=8M,page=2M', '--vcpu', 'idle'];
  const crafted = (): CraftedSource =>
    new CraftedSource()
      .begin('hugemem', 8 * MIB, HUGE)
      .run('hugemem', 0, 8 * MIB)
      .part();

  test.each<[string, CraftedSource, string]>([
    [
      'out of order',
      crafted()
        .page('hugemem', 0, 1)
        .page('hugemem', 2 * PAGE, 1),
      'expected page 1 of RAM block hugemem, found page 2 of RAM block hugemem',
    ],
    [
      'from another host page',
      crafted().page('hugemem', 0, 1).page('hugemem', HUGE, 1),
      'expected page 1 of RAM block hugemem, found page 512 of RAM block hugemem',
    ],
    [
      'without the first',
      crafted().page('hugemem', HUGE + PAGE, 0),
      'expected page 512 of RAM block hugemem, found page 513 of RAM block hugemem',
    ],
    [
      'twice',
      crafted().page('hugemem', 0, 1).page('hugemem', 0, 1),
      'expected page 1 of RAM block hugemem, found page 0 of RAM block hugemem',
    ],
    [
      'short, at the end',
      crafted().page('hugemem', 0, 1).end(),
      'expected 2048 pages, found 0, and a part of a host page',
    ],
  ])('%s pause the migration, with block and offset', async (_, source, why) => {
    const host = await source.sendTo(lab, HUGE_GUEST);
    const { 'error-desc': error } = await untilStatus(host, 'postcopy-paused');
    expect(error).toContain(why);
    expect(error).toMatch(/, at offset 0x[0-9a-f]+ \(\d+\), in ram > hugemem/);
    expect(await host.client.execute('query-status')).toMatchObject({ running: true });
    expect((await host.client.execute('x-wherry-guest'))['normal-pages-received']).toBeLessThan(2);
  });
});

describe('11: what the destination’s host must be able to do', () => {
  const postcopy = { capabilities: [{ capability: 'postcopy-ram', state: true }] } as const;
  test.each([
    ['--without userfaultfd', 'Userfaultfd not available: Function not implemented'],
    ['--without userfaultfd-hugetlbfs', 'Userfault on this host does not support huge pages'],
    ['--without munlockall', 'munlockall() failed: Operation not permitted'],
    [
      '--ram shm=4M,share=on',
      'Host backend files need to be TMPFS or HUGETLBFS only (RAM block shm)',
    ],
  ])('is asked when postcopy-ram is turned on: %s', async (options, why) => {
    const guest = [...SMALL_GUEST, ...options.split(' '), ...WRITER];
    const [source, destination] = await lab.pair(guest);
    await expect(destination.client.execute('migrate-set-capabilities', postcopy)).rejects.toThrow(
      `Postcopy is not supported: ${why}`,
    );
    const capabilities = await destination.client.execute('query-migrate-capabilities');
    expect(capabilities.find(({ capability }) => capability === 'postcopy-ram')?.state).toBe(false);
    await source.client.execute('migrate-set-capabilities', postcopy); // a source needs none of it
    await source.client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'postcopy-ram', state: false }],
    });
    const { code } = await lab.run(['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0']);
    expect(code).toBe(0);
    await expectGuestRuns(destination);
  });

  test('small pages need no huge ones', async () => {
    const guest = ['--ram', 'pc.ram=4M', ...WRITER, '--without', 'userfaultfd-hugetlbfs'];
    const host = await lab.host([...guest, '--incoming', 'defer']);
    await host.client.execute('migrate-set-capabilities', postcopy);
  });
});

const NEEDED_BYTES = 3 * 2 ** 30;
const room = freemem() >= NEEDED_BYTES;
const why = room ? '' : ' (skipped: less than 3 GiB of memory is free)';

describe.skipIf(!room)(`12: pages of 1 GiB, a guest of 2 GiB${why}`, () => {
  test('move by postcopy; 5: and are gathered in their own place, not beside it', async () => {
    const guest = ['--ram', 'pc.ram=2G,page=1G', '--vcpu', 'random,rate=1000', '--fill', '0.1'];
    const [source, destination, link] = await connected(lab, guest, 8e6);
    await source.client.execute('migrate-start-postcopy');
    await untilStatus(source, 'completed');
    await untilStatus(destination, 'completed');
    await expectGuestRuns(destination);
    for (const message of link.answers) {
      if (message.name === 'req-pages') expect(message.length).toBe(2 ** 30);
    }
    const status = readFileSync(`/proc/${destination.process.child.pid}/status`, 'utf8');
    const peakKiB = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]);
    const { 'normal-pages-received': pages } = await destination.client.execute('x-wherry-guest');
    // No second GiB; zero pages that the guest has touched meanwhile are memory too.
    expect(peakKiB - 4 * Number(pages)).toBeLessThan(512 * 1024);
  });
});
