import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam, RamReceiver, RamSender } from '../src/index.ts';
import { FLAG_PAGE, join, KIB, record, sameContent, writePages } from './migrate.ts';

const BLOCKS = [
  { name: 'ram', lengthBytes: 128 * KIB, hostPageBytes: 4096 },
  { name: 'huge', lengthBytes: 1024 * KIB, hostPageBytes: 64 * KIB },
];
/** Banks so small that the second block spans several. */
const SMALL_BANKS = { ioBufferBytes: 16 * KIB, maxBankBytes: 2 ** 20 };

/** A channel: what was sent and has not arrived yet. */
class Wire {
  #bytes: Uint8Array = new Uint8Array();
  #kept = 0;
  readonly #receiver: RamReceiver;
  constructor(receiver: RamReceiver) {
    this.#receiver = receiver;
  }
  get length(): number {
    return this.#bytes.length;
  }
  send(bytes: Uint8Array): void {
    this.#bytes = join([this.#bytes, bytes]);
  }
  arrive(most: number): void {
    const { input } = this.#receiver;
    const size = Math.min(most, this.#bytes.length, input.bytes.length - this.#kept);
    input.bytes.set(this.#bytes.subarray(0, size), this.#kept);
    this.#bytes = this.#bytes.slice(size);
    const end = this.#kept + size;
    const { consumed, error } = this.#receiver.decode(0, end);
    if (error !== undefined) throw error;
    this.#receiver.input.bytes.set(input.bytes.subarray(consumed, end));
    this.#kept = end - consumed;
  }
}

async function postcopy(content: readonly boolean[]) {
  const source = await GuestRam.create(BLOCKS, SMALL_BANKS);
  const destination = await GuestRam.create(BLOCKS, SMALL_BANKS);
  expect(source.banks.length).toBeGreaterThan(1);
  source.setAllReceived(true);
  for (const block of source.blocks) {
    const pages = Array.from({ length: block.pageCount }, (_, page) => page);
    writePages(
      block,
      pages.filter((page) => content[page % content.length]),
      block.index,
    );
  }
  const sender = new RamSender(source, { preempt: true });
  sender.oweAll();
  sender.enterPostcopy();
  const receivers = [new RamReceiver(destination), new RamReceiver(destination, 'preempt')];
  for (const receiver of receivers) receiver.enterPostcopy();
  const [main, preempt] = receivers.map((receiver) => new Wire(receiver));
  return { source, destination, sender, main: main!, preempt: preempt! };
}

describe('two channels in postcopy', () => {
  it('bring every host page whole and once, however the two interleave', async () => {
    const step = fc.oneof(
      fc.record({
        do: fc.constantFrom('next', 'requested'),
        bytes: fc.integer({ min: 1, max: 20_000 }),
      }),
      fc.record({
        do: fc.constantFrom('main', 'preempt'),
        bytes: fc.integer({ min: 1, max: 20_000 }),
      }),
      fc.record({ do: fc.constant('request'), bytes: fc.nat(1151) }),
    );
    const content = fc.array(fc.boolean(), { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(content, fc.array(step, { maxLength: 120 }), async (content, steps) => {
        const { source, destination, sender, main, preempt } = await postcopy(content);
        const send = (chunk: ReturnType<RamSender['next']>, wire: Wire): boolean => {
          if (chunk === undefined) return false;
          expect(chunk.bytes.length).toBeGreaterThan(0);
          wire.send(chunk.bytes);
          chunk.release();
          return true;
        };
        for (const step of steps) {
          if (step.do === 'next') send(sender.next(step.bytes), main);
          else if (step.do === 'requested') send(sender.nextRequested(step.bytes), preempt);
          else if (step.do === 'main') main.arrive(step.bytes);
          else if (step.do === 'preempt') preempt.arrive(step.bytes);
          else {
            const [small, huge] = source.blocks;
            const page = step.bytes;
            if (page < 128) sender.request(small!, (page >> 2) * 4096, 4096);
            else sender.request(huge!, ((page - 128) >> 6) * 64 * KIB, 64 * KIB);
          }
        }
        while (send(sender.nextRequested(), preempt) || send(sender.next(), main));
        expect(sender.owedPages()).toBe(0);
        while (main.length + preempt.length > 0) {
          preempt.arrive(9000);
          main.arrive(7000);
        }
        for (const block of destination.blocks) expect(block.receivedCount()).toBe(block.pageCount);
        sameContent(source, destination);
      }),
      { numRuns: 60 },
    );
  });

  it('let a request cut into a huge page that is being sent', async () => {
    const { source, sender } = await postcopy([true]);
    const [small, huge] = source.blocks;
    sender.request(huge!, 0, 64 * KIB); // moves the background there
    sender.nextRequested(20_000)!.release();
    expect(huge!.owedCount(0, 16)).toBe(13); // as much as a buffer holds
    // The background leaves the rest to the other channel, and begins with the host page behind.
    sender.next(8300)!.release();
    expect(huge!.owedCount(16, 32)).toBe(14);
    expect(sender.insideHostPage).toBe(true);
    sender.request(small!, 4096, 4096);
    while (huge!.owedCount(0, 16) > 0) sender.nextRequested(8300)!.release();
    expect([huge!.owedCount(0, 16), huge!.owedCount(16, 32)]).toEqual([0, 14]);
    while (small!.owedCount(1, 2) > 0) sender.nextRequested()!.release();
    expect(sender.insideHostPage).toBe(true);
  });

  it('leave a host page to the channel that has begun with it, which is then awaited', async () => {
    const { source, sender } = await postcopy([true]);
    const huge = source.block('huge')!;
    sender.request(huge, 0, 64 * KIB);
    while (huge.owedCount(0, 16) > 0) sender.nextRequested()!.release();
    sender.next(8300)!.release();
    expect(sender.hasRequests).toBe(false);
    sender.request(huge, 64 * KIB, 64 * KIB);
    expect(sender.nextRequested()).toBeUndefined();
    expect(sender.hasRequests).toBe(true);
    const chunk = sender.next()!;
    expect(chunk.requested).toBe(true);
    chunk.release();
    while (sender.insideHostPage) sender.next()!.release();
    expect(sender.hasRequests).toBe(false);
  });

  it('refuse a host page of which both bring a part', async () => {
    const { main, preempt } = await postcopy([true]);
    const body = new Uint8Array(4096);
    main.send(record(64 * KIB, FLAG_PAGE, { name: 'huge', body }));
    main.arrive(10_000);
    preempt.send(record(64 * KIB, FLAG_PAGE, { name: 'huge', body }));
    expect(() => preempt.arrive(10_000)).toThrow(/sends one host page over two channels/);
  });
});
