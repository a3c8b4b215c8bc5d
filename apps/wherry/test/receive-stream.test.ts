import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import type { Transport } from '@wherry/migration';
import { type ReturnPathMessage, readReturnPathMessage, writeCommand } from '@wherry/stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  SyntheticStream,
  smallStream,
  someRecords,
} from '../../../packages/snapshot/test/synthetic-stream.ts';
import { type ReceiverOptions, StreamReceiver } from '../src/receive/receive-stream.ts';

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

/** Keeps what is written, as the file would. */
class MemorySink {
  bytes: Uint8Array = new Uint8Array(0);
  finished = false;

  async write(bytes: Uint8Array): Promise<void> {
    this.bytes = Buffer.concat([this.bytes, bytes]);
  }

  async finish(lengthBytes: number): Promise<void> {
    this.bytes = this.bytes.slice(0, lengthBytes);
    this.finished = true;
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

async function receive(
  source: ScriptedSource,
  options: ReceiverOptions = quick,
): Promise<{ receiver: StreamReceiver; sink: MemorySink }> {
  const sink = new MemorySink();
  const receiver = new StreamReceiver(source, sink, options);
  await receiver.receive();
  return { receiver, sink };
}

describe('a migration without a return path', () => {
  test('is kept byte for byte, in whatever pieces it arrives', async () => {
    const bytes = smallStream();
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 20 }), async (cuts) => {
        const sorted = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const pieces = sorted
          .slice(1)
          .map((end, i) => bytes.subarray(sorted[i], end))
          .filter((piece) => piece.length > 0);
        const source = new ScriptedSource(pieces, 'close');
        const { sink, receiver } = await receive(source);
        expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
        expect(receiver).toMatchObject({ receivedBytes: bytes.length, trailingBytes: 0 });
        expect(source.replies).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });

  test('is whole without a vmdesc when the source closes', async () => {
    const bytes = new SyntheticStream().begin().ramStart(list).ramPart('end').end();
    const { sink } = await receive(new ScriptedSource([bytes], 'close'));
    expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
  });

  test('is whole when the source neither closes nor says more', async () => {
    const { sink } = await receive(new ScriptedSource([smallStream()], 'silence'));
    expect(sink.bytes.length).toBe(smallStream().length);
  });

  test('does not keep what follows its end', async () => {
    const bytes = smallStream();
    const pieces = [new Uint8Array([...bytes, 1, 2]), Uint8Array.of(3)];
    const { sink, receiver } = await receive(new ScriptedSource(pieces, 'close'));
    expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
    expect(receiver).toMatchObject({ receivedBytes: bytes.length, trailingBytes: 3 });
  });

  test('cut at any byte fails and is never finished', async () => {
    const bytes = smallStream();
    const eofEnd = bytes.indexOf('{'.charCodeAt(0), 8000) - 5;
    expect(bytes[eofEnd]).toBe(6); // the vmdesc's type byte
    for (let length = 0; length < bytes.length; length += length < 200 ? 1 : 37) {
      if (length === eofEnd) continue;
      const sink = new MemorySink();
      const source = new ScriptedSource(length === 0 ? [] : [bytes.subarray(0, length)], 'close');
      await expect(new StreamReceiver(source, sink, quick).receive()).rejects.toMatchObject({
        code: expect.stringMatching(/^UNEXPECTED_END$|^FOOTER_MISSING$/),
      });
      expect(sink.finished).toBe(false);
    }
  });
});

describe('a migration with a return path', () => {
  test('gets its pong, and SHUT 0 only when the stream is safe', async () => {
    const bytes = withReturnPath().end(vmdesc);
    const source = new ScriptedSource([bytes], 'silence');
    const sink = new MemorySink();
    source.onReply = () => {
      const isShut = source.replies.at(-1)?.name === 'shut';
      expect(sink.finished).toBe(isShut);
    };
    await new StreamReceiver(source, sink, quick).receive();
    expect(source.replies).toEqual([
      { name: 'pong', value: 1 },
      { name: 'shut', status: 0 },
    ]);
    expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
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
    const { sink } = await receive(source);
    expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
  });

  test('gets SHUT 0 after a quiet time when it has no vmdesc', async () => {
    const bytes = withReturnPath().end();
    const source = new ScriptedSource([bytes], 'silence');
    const { sink, receiver } = await receive(source);
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 0 });
    expect(receiver.walk.model.vmdesc).toBeUndefined();
    expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
  });

  test('is whole when the source drops the connection behind the end', async () => {
    const source = new ScriptedSource([withReturnPath().end(vmdesc)], 'drop');
    const { sink } = await receive(source);
    expect(sink.finished).toBe(true);
  });

  test('gets SHUT 1 when it is damaged', async () => {
    const source = new ScriptedSource([withReturnPath((s) => s.ramPart('part')).end()], 'silence');
    await expect(receive(source)).rejects.toMatchObject({ code: 'SECTION_TYPE_UNKNOWN' });
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });

  test('gets SHUT 1 when the file cannot be finished', async () => {
    const source = new ScriptedSource([withReturnPath().end(vmdesc)], 'silence');
    const sink = new MemorySink();
    sink.finish = () => Promise.reject(new Error('disk full'));
    await expect(new StreamReceiver(source, sink, quick).receive()).rejects.toThrow('disk full');
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });

  test('is not confirmed once it was aborted', async () => {
    const abort = new AbortController();
    const source = new ScriptedSource([withReturnPath().end(vmdesc)], 'silence');
    const sink = new MemorySink();
    sink.finish = async () => abort.abort(new Error('interrupted'));
    const receiver = new StreamReceiver(source, sink, { ...quick, signal: abort.signal });
    await expect(receiver.receive()).rejects.toThrow('interrupted');
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });
});

describe('a connection that cannot be kept', () => {
  test('is refused when it stays silent', async () => {
    await expect(receive(new ScriptedSource([], 'silence'))).rejects.toMatchObject({
      code: 'NOTHING_SENT',
    });
  });

  test.each([
    ['postcopy-ram', new SyntheticStream().beginPostcopy().end()],
    ['x-colo', withReturnPath((s) => writeCommand(s.writer, { name: 'enable-colo' })).end()],
    [
      'multifd',
      withReturnPath()
        .ramPart('part', (w) => w.u64(0x200n))
        .end(),
    ],
  ])('is refused when the source has %s on', async (capability, bytes) => {
    const source = new ScriptedSource([bytes], 'silence');
    await expect(receive(source)).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining(capability),
    });
    expect(source.replies.at(-1)).toEqual({ name: 'shut', status: 1 });
  });

  test('is refused when it pings without a return path', async () => {
    const stream = new SyntheticStream().begin();
    writeCommand(stream.writer, { name: 'ping', value: 1 });
    const source = new ScriptedSource([stream.end()], 'silence');
    await expect(receive(source)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(source.replies).toEqual([]);
  });
});
