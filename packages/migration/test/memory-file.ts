import type { Transport } from '../src/index.ts';

/** A file in memory: what lies behind its end reads as nothing, what was passed over as zero. */
export class MemoryFile {
  bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0);

  /** Opens it to write or read a stream from an offset on; each operation takes as long as `wait` says. */
  open(offset = 0, wait: (bytes: number) => Promise<void> = async () => {}): Transport {
    let position = offset;
    const readAt = async (into: Uint8Array, from: number): Promise<number> => {
      await wait(into.length);
      const piece = this.bytes.subarray(from, from + into.length);
      into.set(piece);
      return piece.length;
    };
    const writeAt = async (written: Uint8Array, to: number): Promise<void> => {
      await wait(written.length);
      const end = to + written.length;
      if (end > this.bytes.length) {
        const longer = new Uint8Array(end);
        longer.set(this.bytes);
        this.bytes = longer;
      }
      this.bytes.set(written, to);
    };
    return {
      async read(into) {
        const count = await readAt(into, position);
        position += count;
        return count;
      },
      async write(written) {
        await writeAt(written, position);
        position += written.length;
      },
      end: async () => {},
      destroy() {},
      get file() {
        return {
          position,
          seek: (to: number) => {
            position = to;
          },
          readAt,
          writeAt,
        };
      },
    };
  }
}
