import type { Transport } from '../src/index.ts';
import type { VirtualClock } from './virtual-clock.ts';

/** How a virtual connection behaves. */
export interface NetworkOptions {
  readonly latencyMs: number;
  readonly bytesPerMs: number;
  /** Cut the connection once so many bytes went from source to destination. */
  readonly cutAfterBytes?: number;
  /** Cut it once so many bytes went back. */
  readonly cutAfterBytesBack?: number;
  /** Draws how many bytes a read gives, to cut input anywhere. */
  readonly readSize?: () => number;
  /** Changes what goes from source to destination. */
  readonly corrupt?: (bytes: Uint8Array, offset: number) => void;
}

class Pipe {
  readonly #clock: VirtualClock;
  readonly #options: NetworkOptions;
  readonly #cutAfter: number;
  readonly #corrupt: NetworkOptions['corrupt'];
  #chunks: Uint8Array[] = [];
  #ended = false;
  #readError: Error | undefined;
  #writeError: Error | undefined;
  #total = 0;
  #wake = Promise.withResolvers<void>();
  onCut: (() => void) | undefined;

  constructor(
    clock: VirtualClock,
    options: NetworkOptions,
    cutAfter: number,
    corrupt?: NetworkOptions['corrupt'],
  ) {
    this.#clock = clock;
    this.#options = options;
    this.#cutAfter = cutAfter;
    this.#corrupt = corrupt;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#checkWriting();
    const copy = new Uint8Array(bytes);
    this.#corrupt?.(copy, this.#total);
    const room = Math.max(0, this.#cutAfter - this.#total);
    this.#total += copy.length;
    this.#deliver(copy.subarray(0, room));
    if (copy.length > room) {
      await this.#clock.sleep(this.#options.latencyMs);
      this.onCut?.();
      this.#checkWriting();
    }
    await this.#clock.sleep(copy.length / this.#options.bytesPerMs);
    this.#checkWriting();
  }

  #deliver(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    void this.#clock.sleep(this.#options.latencyMs).then(() => {
      this.#chunks.push(bytes);
      this.#notify();
    });
  }

  async read(into: Uint8Array): Promise<number> {
    for (;;) {
      if (this.#readError !== undefined) throw this.#readError;
      const [chunk] = this.#chunks;
      if (chunk !== undefined) {
        const count = Math.min(
          chunk.length,
          into.length,
          this.#options.readSize?.() ?? chunk.length,
        );
        into.set(chunk.subarray(0, count));
        if (count === chunk.length) this.#chunks.shift();
        else this.#chunks[0] = chunk.subarray(count);
        return count;
      }
      if (this.#ended) return 0;
      await this.#wake.promise;
    }
  }

  end(): void {
    void this.#clock.sleep(this.#options.latencyMs).then(() => {
      this.#ended = true;
      this.#notify();
    });
  }

  /** What is read fails from now on, also what is on its way. */
  breakReading(error: Error): void {
    this.#readError ??= error;
    this.#notify();
  }

  /** What is written fails from now on; what was written still arrives. */
  breakWriting(error: Error): void {
    this.#writeError ??= error;
  }

  #checkWriting(): void {
    if (this.#writeError !== undefined) throw this.#writeError;
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}

/** Makes the two ends of a connection: the source's, then the destination's. */
export function virtualConnection(
  clock: VirtualClock,
  options: NetworkOptions,
): [Transport, Transport] {
  const there = new Pipe(
    clock,
    options,
    options.cutAfterBytes ?? Number.POSITIVE_INFINITY,
    options.corrupt,
  );
  const back = new Pipe(clock, options, options.cutAfterBytesBack ?? Number.POSITIVE_INFINITY);
  const cut = (): void => {
    const error = new Error('Connection reset by peer');
    for (const pipe of [there, back]) {
      pipe.breakReading(error);
      pipe.breakWriting(error);
    }
  };
  there.onCut = back.onCut = cut;
  const end = (out: Pipe, input: Pipe): Transport => ({
    read: (into) => input.read(into),
    write: (bytes) => out.write(bytes),
    end: async () => out.end(),
    // As a socket's close: what was written arrives, then the end; the peer's writes fail.
    destroy: (reason = new Error('destroyed')) => {
      out.breakWriting(reason);
      out.end();
      input.breakReading(reason);
      input.breakWriting(new Error('Broken pipe'));
    },
  });
  return [end(there, back), end(back, there)];
}
