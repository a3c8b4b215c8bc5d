import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import type { Transport } from '@wherry/migration';
import { StreamWalk } from '@wherry/snapshot';
import {
  RamFlag,
  type ReturnPathMessage,
  readReturnPathMessage,
  writeCommand,
  writeFooter,
  writeRamWord,
  writeSectionHead,
} from '@wherry/stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
import {
  SyntheticStream,
  smallStream,
  someRecords,
} from '../../../packages/snapshot/test/synthetic-stream.ts';
import { type ReceiverOptions, StreamReceiver } from '../src/receive/receive-stream.ts';
import { contentsOf, KeptGuest, ramOf } from './kept-guest.ts';

/** A source that sends what it was given, then stays silent, closes, or drops the connection. */
class ScriptedSource implements Transport {
  readonly #pieces: Uint8Array[];
  readonly #then: 'silence' | 'close' | 'drop';
  readonly #written = new ByteWriter();
  readonly #destroyed = Promise.withResolvers<never>();
  /** Called when the destination sends a message. */
  onReply: () => void = () => {};

  constructor(pieces: readonly Uint8Array[], then: 'silence' | 'close' | 'drop') {
    this.#pieces = [...pieces];
    this.#then = then;
    this.#destroyed.promise.catch(() => {});
  }

  async read(into: Uint8Array): Promise<number> {
    await Promise.resolve();
    const piece = this.#pieces.shift();
    if (piece === undefined) {
      if (this.#then === 'close') return 0;
      if (this.#then === 'drop') throw new Error('reset');
      return this.#destroyed.promise;
    }
    const taken = piece.subarray(0, into.length);
    into.set(taken);
    if (taken.length < piece.length) this.#pieces.unshift(piece.subarray(taken.length));
    return taken.length;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#written.raw(bytes);
    this.onReply();
  }

  async end(): Promise<void> {}

  destroy(reason: Error = new Error('destroyed')): void {
    this.#destroyed.reject(reason);
  }

  get replies(): ReturnPathMessage[] {
    const reader = ByteReader.over(this.#written.bytes.slice());
    const replies: ReturnPathMessage[] = [];
    while (reader.available > 0) replies.push(runParser(readReturnPathMessage(reader), reader));
    return replies;
  }
}

const quick: ReceiverOptions = { firstByteMs: 30, vmdescMs: 30, closeMs: 30 };
const list = [
  { name: 'pc.ram', usedBytes: 0x4000 },
  { name: 'rom', usedBytes: 0x1000 },
];

function withReturnPath(write: (stream: SyntheticStream) => void = () => {}): SyntheticStream {
  const stream = new SyntheticStream().begin();
  writeCommand(stream.writer, { name: 'open-return-path' });
  writeCommand(stream.writer, { name: 'ping', value: 1 });
  write(stream);
  return stream.ramStart(list).ramPart('part', someRecords).ramPart('end');
}

const vmdesc = { page_size: 4096, devices: [] };

/** Receives, and compares what is kept with a stream. */
async function receive(
  source: ScriptedSource,
  expected: Uint8Array,
  options: ReceiverOptions = quick,
): Promise<StreamReceiver> {
  using guest = KeptGuest.create();
  const receiver = new StreamReceiver(source, guest, options);
  await receiver.receive();
  expect(contentsOf(guest.bytes)).toEqual(contentsOf(expected));
  return receiver;
}

/** Receives what is not to be kept. */
async function receiveInVain(source: ScriptedSource, options = quick): Promise<never> {
  using guest = KeptGuest.create();
  try {
    await new StreamReceiver(source, guest, options).receive();
  } catch (error) {
    expect(guest.isFinished).toBe(false);
    throw error;
  }
  throw new Error('it was kept');
}

describe('a migration without a return path', () => {
  test('is kept whole, in whatever pieces it arrives', async () => {
    const bytes = smallStream();
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 20 }), async (cuts) => {
        const sorted = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const pieces = sorted
          .slice(1)
          .map((end, i) => bytes.subarray(sorted[i], end))
          .filter((piece) => piece.length > 0);
        const source = new ScriptedSource(pieces, 'close');
        const receiver = await receive(source, bytes);
        expect(receiver).toMatchObject({ receivedBytes: bytes.length, trailingBytes: 0 });
        expect(source.replies).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });

  test.each(['precopy-devices', 'xbzrle', 'dirty-bitmaps', 'no-vmdesc', 'ignore-shared', 'uuid'])(
    'of a real QEMU is kept whole: %s',
    async (name) => {
      const { stream } = loadFixture('7.2', name);
      await receive(new ScriptedSource([stream], 'close'), stream);
    },
  );

  test('is whole without a vmdesc when the source closes', async () => {
    const bytes = new SyntheticStream().begin().ramStart(list).ramPart('end').end();
    await receive(new ScriptedSource([bytes], 'close'), bytes);
  });

  test('is whole when the source neither closes nor says more', async () => {
    await receive(new ScriptedSource([smallStream()], 'silence'), smallStream());
  });

  test('does not keep what follows its end', async () => {
    const bytes = smallStream();
    const pieces = [new Uint8Array([...bytes, 1, 2]), Uint8Array.of(3)];
    const receiver = await receive(new ScriptedSource(pieces, 'close'), bytes);
    expect(receiver).toMatchObject({ receivedBytes: bytes.length, trailingBytes: 3 });
  });

  test('takes no room for zero pages', async () => {
    const bytes = new SyntheticStream()
      .begin()
      .ramStart([{ name: 'pc.ram', usedBytes: 2 ** 36 }])
      .ramPart('end')
      .end();
    using guest = KeptGuest.create();
    await new StreamReceiver(new ScriptedSource([bytes], 'close'), guest, quick).receive();
    expect(guest.lengthBytes).toBeGreaterThan(2 ** 36);
    expect(guest.diskBytes).toBeLessThan(2 ** 22);
  });

  test('cut at any byte fails and is never finished', async () => {
    const bytes = smallStream();
    const eofEnd = bytes.indexOf('{'.charCodeAt(0), 8000) - 5;
    expect(bytes[eofEnd]).toBe(6); // the vmdesc's type byte
    for (let length = 0; length < bytes.length; length += length < 200 ? 1 : 37) {
      if (length === eofEnd) continue;
      const source = new ScriptedSource(length === 0 ? [] : [bytes.subarray(0, length)], 'close');
      await expect(receiveInVain(source)).rejects.toMatchObject({
        code: expect.stringMatching(/^UNEXPECTED_END$|^FOOTER_MISSING$/),
      });
    }
  });
});

describe('a migration with a return path', () => {
  test('gets its pong, and SHUT 0 only when the stream is safe', async () => {
    const bytes = withReturnPath().end(vmdesc);
    const source = new ScriptedSource([bytes], 'silence');
    using guest = KeptGuest.create();
    source.onReply = () => {
      const isShut = source.replies.at(-1)?.name === 'shut';
      expect(guest.isFinished).toBe(isShut);
    };
    await new StreamReceiver(source, guest, quick).receive();
    expect(source.replies).toEqual([
      { name: 'pong', value: 1 },
      { name: 'shut', status: 0 },
    ]);
    expect(contentsOf(guest.bytes)).toEqual(contentsOf(bytes));
  });

  test('waits for a vmdesc that is slow, once it has begun', async () => {
    const bytes = withReturnPath().end(vmdesc);
    const source = new ScriptedSource([bytes.subarray(0, -5)], 'silence');
    const read = source.read.bind(source);
    let reads = 0;
    source.read = async (into) => {
      if (++reads !== 2) return read(into);
      await new Promise((resolve) => setTimeout(resolve, 90)); // three times the quiet time
      expect(source.replies).toEqual([{ name: 'pong', value: 1 }]);
      into.set(bytes.subarray(-5));
      return 5;
    };
    await receive(source, bytes);
  });

  test('gets SHUT 0 after a quiet time when it has no vmdesc', async () => {
    const bytes = withReturnPath().end();
    const source = new ScriptedSource([bytes], 'silence');
    const receiver = await receive(source, bytes);
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 0 });
    expect(receiver.walk.model.vmdesc).toBeUndefined();
  });

  test('is whole when the source drops the connection behind the end', async () => {
    const bytes = withReturnPath().end(vmdesc);
    await receive(new ScriptedSource([bytes], 'drop'), bytes);
  });

  test('gets SHUT 1 when it is damaged', async () => {
    const source = new ScriptedSource([withReturnPath((s) => s.ramPart('part')).end()], 'silence');
    await expect(receiveInVain(source)).rejects.toMatchObject({ code: 'SECTION_TYPE_UNKNOWN' });
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });

  test('gets SHUT 1 when the file cannot be finished', async () => {
    const source = new ScriptedSource([withReturnPath().end(vmdesc)], 'silence');
    using guest = KeptGuest.create();
    guest.finish = () => Promise.reject(new Error('disk full'));
    await expect(new StreamReceiver(source, guest, quick).receive()).rejects.toThrow('disk full');
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });

  test('is not confirmed once it was aborted', async () => {
    const abort = new AbortController();
    const source = new ScriptedSource([withReturnPath().end(vmdesc)], 'silence');
    using guest = KeptGuest.create();
    guest.finish = async () => abort.abort(new Error('interrupted'));
    const receiver = new StreamReceiver(source, guest, { ...quick, signal: abort.signal });
    await expect(receiver.receive()).rejects.toThrow('interrupted');
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });
});

describe('a migration that ends in postcopy', () => {
  const { stream } = loadFixture('11.1', 'postcopy');

  /** What a source sends that goes on: all pages once more. */
  function recovery(): Uint8Array {
    const writer = new ByteWriter();
    const { ram } = ramOf(stream);
    for (const block of ram.keys()) writeCommand(writer, { name: 'recv-bitmap', block });
    writeCommand(writer, { name: 'postcopy-resume' });
    writeSectionHead(writer, { kind: 'part', sectionId: 1 });
    for (const [block, bytes] of ram) {
      for (let at = 0; at < bytes.length; at += 4096) {
        writeRamWord(writer, at, at === 0 ? RamFlag.page : RamFlag.page | RamFlag.continue);
        if (at === 0) writer.counted(block);
        writer.raw(bytes.subarray(at, at + 4096));
      }
    }
    writeRamWord(writer, 0, RamFlag.eos);
    writeFooter(writer, 1);
    return writer.u8(0).finish();
  }

  test.each(['postcopy', 'postcopy-zoo', 'postcopy-bitmaps'])(
    'is kept whole, and no page is asked for: %s',
    async (name) => {
      const fixture = loadFixture('11.1', name);
      const source = new ScriptedSource([fixture.stream], 'silence');
      await receive(source, fixture.stream);
      expect(new Set(source.replies.map((reply) => reply.name))).toEqual(new Set(['pong', 'shut']));
      expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 0 });
    },
  );

  test('is kept whole, in whatever pieces it arrives', async () => {
    const expected = contentsOf(stream);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(stream.length), { maxLength: 200 }), async (cuts) => {
        const sorted = [0, ...cuts.sort((a, b) => a - b), stream.length];
        const pieces = sorted.slice(1).map((end, i) => stream.subarray(sorted[i], end));
        using guest = KeptGuest.create();
        const source = new ScriptedSource(
          pieces.filter(({ length }) => length > 0),
          'silence',
        );
        await new StreamReceiver(source, guest, quick).receive();
        expect(contentsOf(guest.bytes).devices).toEqual(expected.devices);
      }),
      { numRuns: 60 },
    );
  });

  test('goes on over another connection when the first one breaks', async () => {
    const walk = new StreamWalk();
    const reader = ByteReader.over(stream);
    runParser(walk.walk(reader), reader);
    const packaged = walk.model.items.findLast((item) => item.packaged)!;
    const cut = packaged.offset + packaged.lengthBytes + 5000;
    const first = new ScriptedSource([stream.subarray(0, cut)], 'drop');
    const second = new ScriptedSource([recovery()], 'silence');
    const whys: string[] = [];
    const reconnect = async (why: Error): Promise<Transport> => {
      whys.push(why.message);
      return second;
    };
    await receive(first, stream, { ...quick, reconnect });
    expect(whys).toEqual(['reset']);
    expect(first.replies.some(({ name }) => name === 'shut')).toBe(false);
    const bitmaps = second.replies.filter((reply) => reply.name === 'recv-bitmap');
    expect(bitmaps.map(({ block }) => block)).toEqual([...ramOf(stream).ram.keys()]);
    const bits = bitmaps.flatMap(({ bitmap }) => [...bitmap]);
    expect(bits.some((byte) => byte !== 0)).toBe(true);
    expect(bits.some((byte) => byte === 0)).toBe(true);
    expect(second.replies.slice(-2)).toEqual([
      { name: 'resume-ack', value: 1 },
      { name: 'shut', status: 0 },
    ]);
  });

  test('is told to be lost when nobody goes on with it', async () => {
    const source = new ScriptedSource([stream.subarray(0, -200)], 'drop');
    await expect(receiveInVain(source)).rejects.toThrow('reset');
  });
});

describe('a connection that cannot be kept', () => {
  test('is refused when it stays silent', async () => {
    await expect(receiveInVain(new ScriptedSource([], 'silence'))).rejects.toMatchObject({
      code: 'NOTHING_SENT',
    });
  });

  test.each([
    ['x-colo', withReturnPath((s) => writeCommand(s.writer, { name: 'enable-colo' })).end()],
    [
      'multifd',
      withReturnPath()
        .ramPart('part', (w) => w.u64(0x200n))
        .end(),
    ],
  ])('is refused when the source has %s on', async (capability, bytes) => {
    const source = new ScriptedSource([bytes], 'silence');
    await expect(receiveInVain(source)).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining(capability),
    });
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });

  test('is refused when it pings without a return path', async () => {
    const stream = new SyntheticStream().begin();
    writeCommand(stream.writer, { name: 'ping', value: 1 });
    const source = new ScriptedSource([stream.end()], 'silence');
    await expect(receiveInVain(source)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(source.replies).toEqual([]);
  });
});
