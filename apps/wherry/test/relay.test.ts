import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ByteWriter } from '@wherry/bytes';
import type { Transport } from '@wherry/migration';
import { writeCommand, writeReturnPathMessage } from '@wherry/stream';
import { connect, type Listener, listen } from '@wherry/transport';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SyntheticStream, smallStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import { parseCorrupt, parseCut } from '../src/relay/fault.ts';
import { Recording } from '../src/relay/recording.ts';
import { Relay, type RelayOptions } from '../src/relay/relay.ts';
import { type RelayReport, reportOf } from '../src/relay/report.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'wherry-relay-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A relay between two sockets of this process. */
class Bench implements AsyncDisposable {
  readonly #abort = new AbortController();
  readonly #opened: Transport[] = [];
  readonly #relay: Relay;
  readonly #recording: Recording | undefined;
  readonly #target: Listener;
  readonly #source: string;
  readonly #ended: Promise<void>;
  refused = '';

  private constructor(
    target: Listener,
    near: Listener,
    recording: Recording | undefined,
    options: Partial<RelayOptions>,
  ) {
    this.#target = target;
    this.#source = near.uri;
    this.#recording = recording;
    this.#relay = new Relay(near, target.uri, {
      ...options,
      recording,
      signal: this.#abort.signal,
      onEvent: { onRefuse: (reason) => (this.refused += reason) },
    });
    this.#ended = this.#relay.run();
    this.#ended.catch(() => {});
  }

  static async open(
    options: Partial<RelayOptions> & { readonly isRecorded?: boolean } = {},
  ): Promise<Bench> {
    const target = await listen('tcp:127.0.0.1:0');
    const near = await listen('tcp:127.0.0.1:0');
    const { isRecorded, ...rest } = options;
    const file = join(directory, 'rec');
    return new Bench(target, near, isRecorded ? await Recording.create(file) : undefined, rest);
  }

  /** Connects as a source does. */
  async source(first?: Uint8Array): Promise<Transport> {
    const source = await connect(this.#source);
    this.#opened.push(source);
    if (first !== undefined) await source.write(first);
    return source;
  }

  /** Takes the connection that the relay makes to the destination. */
  async destination(): Promise<Transport> {
    const signal = AbortSignal.timeout(5_000);
    const transport = await this.#target.accept({ signal });
    this.#opened.push(transport);
    return transport;
  }

  closeTarget(): Promise<void> {
    return this.#target.close();
  }

  /** Waits until the relay ends. */
  async report(): Promise<RelayReport> {
    await this.#ended;
    await this.#recording?.close();
    return reportOf(this.#relay, this.#recording);
  }

  async interrupt(): Promise<void> {
    this.#abort.abort(new Error('interrupted'));
    await this.#ended;
  }

  get hasEnded(): Promise<boolean> {
    const yes = this.#ended.then(
      () => true,
      () => true,
    );
    return Promise.race([yes, sleep(100, false)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error('over'));
    await this.#ended.catch(() => {});
    for (const transport of this.#opened) transport.destroy();
    await this.#target.close();
    await this.#recording?.close();
  }
}

/** Reads to the end, or to the loss, of a direction. */
async function readAll(transport: Transport): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(65_536);
    const count = await transport.read(into).catch(() => 0);
    if (count === 0) return Buffer.concat(chunks);
    chunks.push(into.subarray(0, count));
  }
}

async function readSome(transport: Transport, count: number): Promise<Buffer> {
  const into = new Uint8Array(count);
  for (let have = 0; have < count; ) {
    const more = await transport.read(into.subarray(have));
    if (more === 0) throw new Error(`it ended after ${have} of ${count} bytes`);
    have += more;
  }
  return Buffer.from(into);
}

/** A stream that runs the guest at the destination and then sends a page. */
function postcopyStream(): Uint8Array {
  const stream = new SyntheticStream().beginPostcopy();
  stream.ramStart([{ name: 'pc.ram', usedBytes: 0x10_000 }]).ramPart('part');
  const inner = new ByteWriter();
  writeCommand(inner, { name: 'postcopy-listen' });
  writeCommand(inner, { name: 'postcopy-run' });
  const bytes = inner.finish();
  writeCommand(stream.writer, { name: 'packaged', lengthBytes: bytes.length });
  stream.writer.raw(bytes);
  return stream.writer.finish();
}

const RECOVERY = ((): Uint8Array => {
  const writer = new ByteWriter();
  writeCommand(writer, { name: 'recv-bitmap', block: 'pc.ram' });
  writeCommand(writer, { name: 'postcopy-resume' });
  return writer.finish();
})();

function message(...names: readonly ('pong' | 'shut')[]): Uint8Array {
  const writer = new ByteWriter();
  for (const name of names) {
    if (name === 'pong') writeReturnPathMessage(writer, { name, value: 1 });
    else writeReturnPathMessage(writer, { name, status: 0 });
  }
  return writer.finish();
}

describe('a relay', () => {
  test('passes both directions on, records them, and ends with the migration', async () => {
    await using bench = await Bench.open({ isRecorded: true });
    const stream = smallStream();
    const source = await bench.source(stream.subarray(0, 100));
    const destination = await bench.destination();
    const [, got] = await Promise.all([
      source.write(stream.subarray(100)).then(() => source.end()),
      readAll(destination),
    ]);
    expect(Buffer.compare(got, stream)).toBe(0);
    // The other direction is open still.
    await destination.write(message('pong', 'shut'));
    await destination.end();
    expect(await readAll(source)).toEqual(Buffer.from(message('pong', 'shut')));
    const report = await bench.report();
    expect(report).toMatchObject({
      ...{ status: 'completed', machineType: 'pc-q35-5.2', devices: 1, problems: [] },
      pages: { page: 2, zero: 2, xbzrle: 1 },
      channels: [
        {
          ...{ name: 'main', kind: 'main', forwardBytes: stream.length, end: 'closed' },
          ...{ phase: 'end', messages: { pong: 1, shut: 1 }, shutStatus: 0 },
        },
      ],
    });
    expect(Buffer.compare(readFileSync(join(directory, 'rec')), stream)).toBe(0);
    expect(statSync(join(directory, 'rec')).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(directory, 'rec.return-path'))).toEqual(
      Buffer.from(message('pong', 'shut')),
    );
  });

  test.each([
    ['setup', 'the first item'],
    ['ram', 'pages'],
    ['toy', 'a section'],
    ['end', 'the end'],
    ['500', 'an offset'],
  ])('cuts both sides behind %s', async (place) => {
    await using bench = await Bench.open({ faults: parseCut(place) });
    const source = await bench.source(smallStream());
    const got = await readAll(await bench.destination());
    await readAll(source);
    const { status, faults, missed } = await bench.report();
    expect({ status, missed }).toEqual({ status: 'cut', missed: [] });
    expect(faults).toEqual([{ kind: 'cut', at: place, channel: 'main', offset: got.length }]);
    expect(Buffer.compare(got, smallStream().subarray(0, got.length))).toBe(0);
    expect(got.length).toBeLessThan(smallStream().length);
  });

  test('cuts at the same byte however the stream is chopped', async () => {
    const offsets = new Set<number>();
    for (const piece of [1, 7, 4096, 100_000]) {
      await using bench = await Bench.open({ faults: parseCut('toy+1') });
      const source = await bench.source();
      const stream = smallStream();
      const sending = (async () => {
        for (let at = 0; at < stream.length; at += piece) {
          await source.write(stream.subarray(at, at + piece));
        }
      })().catch(() => {});
      offsets.add((await readAll(await bench.destination())).length);
      await sending;
    }
    expect(offsets.size).toBe(1);
  });

  test('corrupts one byte of a section, and tells where', async () => {
    await using bench = await Bench.open({ faults: parseCorrupt('toy+2^10'), isRecorded: true });
    const stream = smallStream();
    const source = await bench.source(stream);
    await source.end();
    const destination = await bench.destination();
    const got = await readAll(destination);
    await destination.end();
    const { faults, status } = await bench.report();
    const { offset } = faults[0]!;
    expect(status).toBe('completed');
    expect([...got].flatMap((byte, at) => (byte === stream[at] ? [] : [[at, byte]]))).toEqual([
      [offset, stream[offset]! ^ 0x10],
    ]);
    // What is recorded is what the destination got.
    expect(Buffer.compare(readFileSync(join(directory, 'rec')), got)).toBe(0);
  });

  test('passes on what it cannot read', async () => {
    await using bench = await Bench.open();
    const stream = smallStream().slice();
    stream[23] = 0x55; // no section begins with it
    const source = await bench.source(stream);
    await source.end();
    const destination = await bench.destination();
    expect(Buffer.compare(await readAll(destination), stream)).toBe(0);
    await destination.end();
    const { status, channels } = await bench.report();
    expect(status).toBe('broken');
    expect(channels[0]?.problem?.code).toBe('SECTION_TYPE_UNKNOWN');
  });

  test('a stranger who says nothing holds nothing, and hides nobody', async () => {
    await using bench = await Bench.open();
    await bench.source();
    const stream = smallStream();
    const source = await bench.source(stream);
    await source.end();
    const destination = await bench.destination();
    expect(Buffer.compare(await readAll(destination), stream)).toBe(0);
    await destination.end();
    expect((await bench.report()).channels.map(({ name }) => name)).toEqual(['main']);
  });

  test('joins further connections in their order, a silent one too', async () => {
    await using bench = await Bench.open({ isRecorded: true });
    const main = await bench.source(smallStream());
    const farMain = await bench.destination();
    const silent = await bench.source();
    const farSilent = await bench.destination();
    const hello = new Uint8Array(64);
    hello.set([0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]);
    hello[24] = 3;
    const multifd = await bench.source(hello);
    const farMultifd = await bench.destination();
    expect(await readSome(farMultifd, 64)).toEqual(Buffer.from(hello));
    await silent.write(Uint8Array.of(0, 0, 0, 0, 0, 0, 0x10, 0x10));
    expect((await readSome(farSilent, 8))[7]).toBe(0x10);
    for (const near of [main, silent, multifd]) await near.end();
    await Promise.all(
      [farMain, farSilent, farMultifd].map(async (far) => {
        await readAll(far);
        await far.end();
      }),
    );
    const { channels } = await bench.report();
    expect(channels.map(({ name, forwardBytes }) => [name, forwardBytes])).toEqual([
      ['main', smallStream().length],
      ['preempt', 8],
      ['multifd 3', 64],
    ]);
    expect(readdirSync(directory).sort()).toEqual(['rec', 'rec.multifd-3', 'rec.preempt']);
  });

  test('waits for the recovery of a postcopy that was cut', async () => {
    await using bench = await Bench.open({ faults: parseCut('postcopy'), isRecorded: true });
    await bench.source(postcopyStream());
    expect((await readAll(await bench.destination())).length).toBe(postcopyStream().length);
    expect(await bench.hasEnded).toBe(false);
    const source = await bench.source(RECOVERY);
    const destination = await bench.destination();
    const end = new SyntheticStream().ramPart('end').writer.u8(0).finish();
    await source.write(end);
    await source.end();
    await readAll(destination);
    await destination.write(message('shut'));
    await destination.end();
    const { status, channels } = await bench.report();
    expect(status).toBe('completed');
    expect(channels.map(({ name, phase, end }) => [name, phase, end])).toEqual([
      ['main', 'postcopy', 'cut'],
      ['recovery', 'end', 'closed'],
    ]);
    expect(readFileSync(join(directory, 'rec.recovery')).length).toBe(RECOVERY.length + end.length);
  });

  test('delays and limits', async () => {
    await using bench = await Bench.open({ delayMs: 150, bytesPerSecond: 200_000 });
    const stream = Buffer.concat([smallStream(), new Uint8Array(60_000)]);
    const startMs = performance.now();
    const source = await bench.source(stream);
    await source.end();
    const destination = await bench.destination();
    await readSome(destination, 1);
    expect(performance.now() - startMs).toBeGreaterThan(140);
    await readAll(destination);
    const leastMs = 150 + (stream.length / 200_000) * 1000 - 30;
    expect(performance.now() - startMs).toBeGreaterThan(leastMs);
    await destination.end();
    expect((await bench.report()).status).toBe('completed');
  });

  test('holds back a source whose destination does not read', async () => {
    await using bench = await Bench.open({ delayMs: 1 });
    const source = await bench.source(smallStream());
    await bench.destination();
    const block = new Uint8Array(1024 * 1024);
    let sent = 0;
    const sending = (async () => {
      for (; sent < 200; sent++) await source.write(block);
    })().catch(() => {});
    await Promise.race([sending, sleep(700)]);
    expect(sent).toBeLessThan(100); // the system's buffers and 16 MiB here
  });

  test('says that the destination cannot be reached, and drops the source', async () => {
    await using bench = await Bench.open();
    await bench.closeTarget();
    const source = await bench.source(smallStream());
    expect((await readAll(source)).length).toBe(0);
    const { status, problems } = await bench.report();
    expect(status).toBe('none');
    expect(problems[0]).toContain('refused the connection');
    expect(bench.refused).toContain('refused the connection');
  });

  test('an interrupt drops all and names its reason', async () => {
    await using bench = await Bench.open();
    const source = await bench.source(smallStream().subarray(0, 200));
    const destination = await bench.destination();
    await readSome(destination, 200);
    await expect(bench.interrupt()).rejects.toThrow('interrupted');
    expect((await readAll(source)).length).toBe(0);
    expect((await readAll(destination)).length).toBe(0);
  });
});

describe('a recording', () => {
  test.each(['rec', 'rec.return-path'])('refuses to replace %s', async (name) => {
    const older = await Recording.create(join(directory, name));
    await older.close();
    await expect(Recording.create(join(directory, 'rec'))).rejects.toThrow('exists already');
  });
});
