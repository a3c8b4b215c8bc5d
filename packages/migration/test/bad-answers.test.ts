// What a hostile or broken destination may answer: one error each that says where and why, and a guest
// that runs on here, or a postcopy that can be recovered.

import type { ReturnPathMessage } from '@wherry/stream';
import { describe, expect, it } from 'vitest';
import { DEFAULT_PARAMETERS, SourceMigration } from '../src/index.ts';
import { saying } from './saying.ts';
import { BLOCKS, KIB, type Scenario, simulate } from './simulate.ts';
import { RunningGuests, SimulatedGuest } from './simulated-guest.ts';
import { VirtualClock } from './virtual-clock.ts';
import { virtualConnection } from './virtual-network.ts';

const request = (start: number, length: number, block?: string): ReturnPathMessage => ({
  name: 'req-pages',
  start,
  length,
  ...(block === undefined ? {} : { block }),
});
type Answers = readonly ReturnPathMessage[] | Uint8Array;
const raw = (hex: string): Uint8Array =>
  Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

/** Wrong at any time. */
const MALFORMED: [what: string, answers: Answers, why: RegExp][] = [
  ['an unknown message', raw('00630000'), /type 99.*at offset 0x/],
  ['a message longer than any', raw('00030fff'), /at most 512 bytes, found 4095.*at offset 0x/],
  ['a request that is too short', raw('00040008 0000000000000000'), /at offset 0x/],
  ['a SHUT of another length', raw('00010002 0000'), /expected 4 bytes for type 1, found 2/],
];

describe('a destination that answers, in precopy,', () => {
  it.each<[string, Answers, RegExp]>([
    ...MALFORMED,
    [
      'with a request',
      [request(0, 4096, 'pc.ram')],
      /requested pages in vain: expected no request before postcopy, found 4096 bytes at 0, at offset 0x0 .*REQ_PAGES > pc\.ram/,
    ],
    [
      'with a bitmap',
      [{ name: 'recv-bitmap', block: 'pc.ram', bitmap: new Uint8Array(16) }],
      /unexpected recv-bitmap/,
    ],
    ['with RESUME_ACK', [{ name: 'resume-ack', value: 1 }], /unexpected resume-ack/],
  ])('%s fails the migration, and the guest runs on', async (_, answers, why) => {
    const clock = new VirtualClock();
    const all = new RunningGuests();
    const guest = await SimulatedGuest.create({
      name: 'source',
      blocks: BLOCKS,
      clock,
      all,
      seed: 1,
    });
    guest.ram.setAllReceived(true);
    guest.fill();
    guest.start();
    const source = new SourceMigration({
      guest,
      transport: saying(clock, answers),
      clock,
      capabilities: new Set(['return-path', 'postcopy-ram'] as const),
      parameters: () => ({ ...DEFAULT_PARAMETERS, 'max-bandwidth': 1e6 }),
    });
    await clock.runUntil(source.run());
    expect(source.error?.message).toMatch(why);
    expect(source.error?.message).toMatch(/return path/);
    expect([source.status, guest.running]).toEqual(['failed', true]);
    await clock.runUntil(guest.stop());
    guest.checkAllPages();
    expect(guest.violations).toEqual([]);
  });
});

const BROKEN: Scenario = {
  seed: 700,
  capabilities: ['postcopy-ram'],
  network: { cutAfterBytes: 250 * KIB, bytesPerMs: 3000 },
  startPostcopyAfterMs: 10,
};
const NOTHING_HERE: readonly ReturnPathMessage[] = [
  { name: 'recv-bitmap', block: 'pc.ram', bitmap: new Uint8Array(16) },
  { name: 'recv-bitmap', block: 'hugemem', bitmap: new Uint8Array(8) },
];
const ACK: readonly ReturnPathMessage[] = [{ name: 'resume-ack', value: 1 }];

describe('a destination that answers, in postcopy,', () => {
  it.each<[string, Answers, RegExp]>([
    ...MALFORMED,
    [
      'with a request behind the end of its block',
      [request(512 * KIB, 4096, 'pc.ram')],
      /REQ_PAGES request overrun, start=80000 len=1000 blocklen=80000: expected a range in 524288 bytes, found 4096 bytes at 524288, at offset 0x.*REQ_PAGES > pc\.ram/,
    ],
    [
      'with a request that leaves its block',
      [request(508 * KIB, 8192, 'pc.ram')],
      /request overrun, start=7f000 len=2000 blocklen=80000/,
    ],
    [
      'with a request far beyond its block',
      [request(2 ** 52, 4096, 'hugemem')],
      /request overrun, start=10000000000000 len=1000 blocklen=40000/,
    ],
    ['with a request of nothing', [request(0, 0, 'pc.ram')], /request overrun, start=0 len=0/],
    [
      'with a request of parts of pages',
      [request(100, 4096, 'pc.ram')],
      /Misaligned page request, start: 64 len: 1000: expected whole target pages/,
    ],
    [
      'with a request of another block',
      [request(0, 4096, 'pc.rom')],
      /REQ_PAGES has no block 'pc\.rom': expected one of pc\.ram, hugemem/,
    ],
    [
      'with a bitmap',
      [{ name: 'recv-bitmap', block: 'pc.ram', bitmap: new Uint8Array(16) }],
      /unexpected recv-bitmap/,
    ],
  ])('%s pauses the migration, which is recovered', async (_, answers, why) => {
    const outcome = await simulate(BROKEN);
    const { clock, source, destination, destinationGuest } = outcome;
    expect([source.status, destination.status]).toEqual(['postcopy-paused', 'postcopy-paused']);
    const far = saying(clock, NOTHING_HERE, ACK, answers);
    const slow = { ...far, write: (bytes: Uint8Array) => clock.sleep(bytes.length / 100) };
    await clock.runUntil(source.resume(Promise.resolve(slow)));
    expect(source.status).toBe('postcopy-paused');
    expect(source.error?.message).toMatch(why);
    expect(source.error?.message).toMatch(/return path/);

    const [there, here] = virtualConnection(clock, { latencyMs: 0.3, bytesPerMs: 20_000 });
    await clock.runUntil(
      Promise.all([source.resume(Promise.resolve(there)), destination.recover(here)]),
    );
    expect([source.status, destination.status]).toEqual(['completed', 'completed']);
    destinationGuest.checkAllPages();
    expect(destinationGuest.violations).toEqual([]);
  });
});
