import { describe, expect, it } from 'vitest';
import type { SourceMigration } from '../src/index.ts';
import { BLOCKS, expectMoved, KIB, type Outcome, type Scenario, simulate } from './simulate.ts';
import { randomFrom } from './simulated-guest.ts';

describe('precopy', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('moves a running guest, seed %i', async (seed) => {
    const outcome = await simulate({
      seed,
      capabilities: ['return-path'],
      network: { readSize: readSizes(seed) },
    });
    expectMoved(outcome);
    expect(outcome.sourceStatuses).toEqual(['setup', 'active', 'device', 'completed']);
    expect(outcome.destinationStatuses).toEqual(['setup', 'active', 'completed']);
    const { ram, downtime } = outcome.source.info;
    expect(ram).toMatchObject({ remaining: 0, total: 768 * KIB, 'page-size': 4096 });
    expect(ram?.duplicate).toBeGreaterThan(0);
    expect(downtime).toBeGreaterThan(0);
  });

  it('moves one without a return path', async () => {
    expectMoved(await simulate({ seed: 11, capabilities: [] }));
  });

  it('leaves a paused guest paused', async () => {
    const outcome = await simulate({ seed: 12, capabilities: ['return-path'], paused: true });
    expect([outcome.source.status, outcome.destination.status]).toEqual(['completed', 'completed']);
    expect(outcome.running.names).toEqual([]);
  });

  it('keeps to max-bandwidth', async () => {
    const fast = await simulate({ seed: 13, capabilities: ['return-path'] });
    const slow = await simulate({
      seed: 13,
      capabilities: ['return-path'],
      parameters: { 'max-bandwidth': 200_000 },
      source: { writeEveryMs: 1000 },
    });
    expectMoved(slow);
    const { ram, 'total-time': totalMs } = slow.source.info;
    expect((ram!.transferred / totalMs!) * 1000).toBeLessThan(2.5 * 200_000);
    expect(totalMs).toBeGreaterThan(fast.source.info['total-time']! / 2);
  });

  it('sends more rounds while the guest dirties more than the downtime allows', async () => {
    const outcome = await simulate({
      seed: 14,
      capabilities: ['return-path'],
      network: { bytesPerMs: 4000 },
      parameters: { 'downtime-limit': 20 },
      source: { writeEveryMs: 2 },
    });
    expectMoved(outcome);
    expect(outcome.source.info.ram?.['dirty-sync-count']).toBeGreaterThan(2);
  });

  it.each([0, 1, 5, 20, 40, 80])(
    'is cancelled after %i ms as if nothing had been',
    async (cancelAfterMs) => {
      const outcome = await simulate({
        seed: 15,
        capabilities: ['return-path'],
        network: { bytesPerMs: 4000 },
        cancelAfterMs,
      });
      expect(outcome.source.status).toBe('cancelled');
      expect(outcome.destination.status).toBe('failed');
      expect(outcome.running.names).toEqual(['source']);
    },
  );
});

describe('postcopy', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('moves a running guest, seed %i', async (seed) => {
    const outcome = await simulate({
      seed,
      capabilities: ['postcopy-ram'],
      network: { bytesPerMs: 3000, readSize: readSizes(seed) },
      startPostcopyAfterMs: seed * 12,
    });
    expectMoved(outcome);
    expect(outcome.sourceStatuses).toEqual([
      'setup',
      'active',
      'device',
      'postcopy-active',
      'completed',
    ]);
    expect(outcome.destinationStatuses).toEqual([
      'setup',
      'active',
      'postcopy-active',
      'completed',
    ]);
    expect(outcome.source.info.ram?.['postcopy-requests']).toBeGreaterThan(0);
    expect(outcome.destination.counters.placedHostPages).toBeGreaterThan(0);
  });

  it('answers at once what the guest waits for, however slow the background may be', async () => {
    const outcome = await simulate({
      seed: 23,
      capabilities: ['postcopy-ram'],
      parameters: { 'max-postcopy-bandwidth': 100_000 },
      network: { bytesPerMs: 10_000 },
      startPostcopyAfterMs: 5,
    });
    expectMoved(outcome);
    const seconds = outcome.source.info['total-time']! / 1000;
    expect(seconds).toBeGreaterThan(2); // 600 KiB at 100 kB/s, less what was requested
    // A page every millisecond, each answered within about one: a background page would take 40.
    const written = Number(outcome.destinationGuest.writes - outcome.sourceGuest.writes);
    expect(written / seconds).toBeGreaterThan(300);
  });

  it('is plain precopy when nobody asks for it', async () => {
    const outcome = await simulate({ seed: 20, capabilities: ['postcopy-ram'] });
    expectMoved(outcome);
    expect(outcome.sourceStatuses).not.toContain('postcopy-active');
  });

  it('works when nothing is left to send', async () => {
    const outcome = await simulate({
      seed: 21,
      capabilities: ['postcopy-ram'],
      parameters: { 'downtime-limit': 0 },
      source: { writeEveryMs: 40 },
      network: { bytesPerMs: 100_000 },
      startPostcopyAfterMs: 12,
    });
    expectMoved(outcome);
  });

  it('needs its capability', async () => {
    const outcome = await simulate({ seed: 22, capabilities: ['return-path'] });
    expect(() => outcome.source.startPostcopy()).toThrow(
      /Enable postcopy with migrate_set_capability/,
    );
  });
});

describe('a connection that is cut', () => {
  const cuts = Array.from({ length: 14 }, (_, i) => i);
  it.each(cuts)('in precopy leaves one guest or says that it cannot know, case %i', async (i) => {
    const cutAfterBytes = [0, 8, 30, 60, 100, 140, 200, 5000][i] ?? randomFrom(i)(900 * KIB);
    const outcome = await simulate({
      seed: 100 + i,
      capabilities: ['return-path'],
      network: { cutAfterBytes, bytesPerMs: 4000 },
    });
    checkOneGuest(outcome);
  });

  it.each(cuts)(
    'on the way back leaves one guest or says that it cannot know, case %i',
    async (i) => {
      const outcome = await simulate({
        seed: 200 + i,
        capabilities: ['postcopy-ram'],
        network: { cutAfterBytesBack: i * 3, bytesPerMs: 4000 },
        // Without postcopy the guest must not dirty about as much as the link carries: it would take minutes.
        ...(i % 2 === 0 ? { source: { writeEveryMs: 4 } } : { startPostcopyAfterMs: 30 }),
      });
      checkOneGuest(outcome);
    },
  );

  it.each(cuts)('in postcopy pauses both sides, case %i', async (i) => {
    const outcome = await simulate({
      seed: 300 + i,
      capabilities: ['postcopy-ram'],
      network: { cutAfterBytes: 60 * KIB + i * 20 * KIB, bytesPerMs: 3000 },
      startPostcopyAfterMs: 10,
    });
    checkOneGuest(outcome);
  });
});

function checkOneGuest({ source, destination, running }: Outcome): void {
  expect(running.names.length).toBeLessThanOrEqual(1);
  switch (`${source.status} ${destination.status}`) {
    case 'completed completed':
      expect(running.names).toEqual(['destination']);
      break;
    case 'failed failed':
      if (isUnknown(source)) expect(running.names).toEqual([]);
      else expect(running.names).toEqual(['source']);
      break;
    case 'failed completed': // the last word was lost: the source says that it cannot know
      expect(isUnknown(source)).toBe(true);
      expect(running.names).toEqual(['destination']);
      break;
    case 'postcopy-paused postcopy-paused':
    case 'postcopy-paused completed':
      expect(running.names).toEqual(['destination']);
      break;
    case 'postcopy-paused failed': // the package was cut: nobody runs, and the source still holds everything
      expect(running.names).toEqual([]);
      break;
    default:
      throw new Error(`unexpected outcome: ${source.status}, ${destination.status}`);
  }
  if (source.status !== 'completed') expect(source.error?.message).toMatch(/\S/);
  if (destination.status !== 'completed') expect(destination.error?.message).toMatch(/offset 0x/);
}

const isUnknown = (source: SourceMigration): boolean =>
  (source.error as { code?: string } | undefined)?.code === 'OUTCOME_UNKNOWN';

describe('hosts that differ', () => {
  it.each<[string, Partial<Scenario>, RegExp]>([
    [
      'in machine type',
      { destination: { machineType: 'pc-q35-7.2' } },
      /Machine type received is 'pc-q35-5.2' and local is 'pc-q35-7.2', in configuration/,
    ],
    [
      'in RAM size',
      { destination: { blocks: [{ ...BLOCKS[0]!, lengthBytes: 256 * KIB }, BLOCKS[1]!] } },
      /Size mismatch: pc.ram: 0x80000 != 0x40000/,
    ],
    [
      'in RAM blocks',
      { destination: { blocks: [BLOCKS[0]!] } },
      /Unknown ramblock "hugemem", cannot accept migration/,
    ],
    [
      'in page sizes',
      {
        capabilities: ['postcopy-ram'],
        destination: { blocks: [BLOCKS[0]!, { ...BLOCKS[1]!, hostPageBytes: 4096 }] },
      },
      /Postcopy needs matching RAM page sizes \(s=11000 d=1000\)/,
    ],
    [
      'in the page size of one block',
      {
        capabilities: ['postcopy-ram'],
        destination: {
          blocks: [
            { ...BLOCKS[0]!, hostPageBytes: 65536 },
            { ...BLOCKS[1]!, hostPageBytes: 4096 },
          ],
        },
      },
      /Mismatched RAM page size pc\.ram \(local\) 65536 != 4096: .* at offset 0x[0-9a-f]+ .*in ram > pc\.ram/,
    ],
    [
      'in the page size of the last block, where the sum of the sizes is the same',
      {
        capabilities: ['postcopy-ram'],
        source: { blocks: [...BLOCKS, { ...BLOCKS[1]!, name: 'last' }] },
        destination: { blocks: [...BLOCKS, { ...BLOCKS[1]!, name: 'last', hostPageBytes: 4096 }] },
      },
      /Mismatched RAM page size last \(local\) 4096 != 65536: .* in ram > last/,
    ],
    [
      'in devices',
      { destination: { device: 'other' } },
      /Unknown section or instance 'witness' 0\. Make sure/,
    ],
    [
      'in the version of a device',
      { source: { deviceVersion: 2 } },
      /unsupported version 2 for 'witness' v1, at offset 0x[0-9a-f]+ .*in witness/,
    ],
    [
      'in capabilities',
      { capabilities: ['postcopy-ram'], destinationCapabilities: ['return-path'] },
      /RAM postcopy is disabled but have 16 byte advise/,
    ],
  ])('%s are told so, and the guest runs on', async (_, scenario, message) => {
    const outcome = await simulate({ seed: 30, capabilities: ['return-path'], ...scenario });
    expect(outcome.destination.error?.message).toMatch(message);
    expect(outcome.source.error?.message).toMatch(
      /The destination (could not load the guest: found status 1|closed the connection)/,
    );
    expect([outcome.source.status, outcome.destination.status]).toEqual(['failed', 'failed']);
    expect(outcome.running.names).toEqual(['source']);
  });
});

describe('a corrupt stream', () => {
  it.each(Array.from({ length: 24 }, (_, i) => i))(
    'ends in one clear error or a checked guest, case %i',
    async (i) => {
      const random = randomFrom(1000 + i);
      const at = i < 12 ? random(300) : random(700 * KIB);
      const outcome = await simulate({
        seed: 400 + i,
        capabilities: i % 2 === 0 ? ['return-path'] : ['postcopy-ram'],
        paused: true, // its content is not checked: RAM has no checksum on the wire
        network: {
          corrupt: (bytes, offset) => {
            const index = at - offset;
            if (index >= 0 && index < bytes.length)
              bytes[index] = bytes[index]! ^ (1 + random(255));
          },
        },
      });
      expect(outcome.running.names).toEqual([]);
      for (const side of [outcome.source, outcome.destination]) {
        expect(['completed', 'failed', 'postcopy-paused']).toContain(side.status);
        if (side.status === 'failed')
          expect(side.error?.name).toMatch(/^(Migration|Stream|Bytes|Vmstate)Error$/);
      }
    },
  );
});

function readSizes(seed: number): () => number {
  const random = randomFrom(seed * 77);
  return () => 1 + (random(4) === 0 ? random(20) : random(70_000));
}
