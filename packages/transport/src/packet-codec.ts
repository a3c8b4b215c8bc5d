import {
  constants,
  createDeflate,
  createInflate,
  createZstdCompress,
  createZstdDecompress,
} from 'node:zlib';
import type { PacketCompressor, PacketDecompressor } from '@wherry/migration';

/** Output that zlib makes at a time. */
const CHUNK_BYTES = 128 * 1024;
/** More than a packet becomes: whoever writes to a stream here reads all of it before the next write. */
const BUFFERED_BYTES = 4 * 1024 * 1024;

type Codec = ReturnType<typeof createDeflate> | ReturnType<typeof createZstdCompress>;

/** What compresses, with its level as QEMU takes it. */
export type Compression =
  | { readonly method: 'zlib'; readonly level: number }
  | { readonly method: 'zstd'; readonly level: number };

/**
 * Makes what compresses the packets of one channel: one zlib stream or zstd frame for all of them,
 * flushed behind each.
 *
 * @see QEMU migration/multifd-zlib.c, migration/multifd-zstd.c
 */
export function createPacketCompressor({ method, level }: Compression): PacketCompressor {
  const common = { chunkSize: CHUNK_BYTES, readableHighWaterMark: BUFFERED_BYTES };
  const codec: Codec =
    method === 'zlib'
      ? createDeflate({ ...common, level, flush: constants.Z_SYNC_FLUSH })
      : createZstdCompress({
          ...common,
          flush: constants.ZSTD_e_flush,
          params: { [constants.ZSTD_c_compressionLevel]: level },
        });
  const pump = new Pump(codec);
  return {
    compress: async (content) => {
      const chunks: Uint8Array[] = [];
      await pump.write(content, (chunk) => chunks.push(chunk) > 0);
      return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    },
    close: () => pump.close(),
  };
}

/** Makes what reads the packets of one channel that {@link createPacketCompressor} or a QEMU made. */
export function createPacketDecompressor(method: Compression['method']): PacketDecompressor {
  const common = { chunkSize: CHUNK_BYTES, readableHighWaterMark: BUFFERED_BYTES };
  const codec: Codec =
    method === 'zlib'
      ? createInflate({ ...common, flush: constants.Z_SYNC_FLUSH })
      : createZstdDecompress({ ...common, flush: constants.ZSTD_e_flush });
  const pump = new Pump(codec);
  return {
    decompress: async (bytes, into) => {
      let count = 0;
      await pump.write(bytes, (chunk) => {
        if (count < into.length) into.set(chunk.subarray(0, into.length - count), count);
        count += chunk.length;
        return count <= into.length;
      });
      return count;
    },
    close: () => pump.close(),
  };
}

/** Writes to a stream of Node's zlib, and takes what comes out of each write. */
class Pump {
  readonly #codec: Codec;
  #take: (chunk: Uint8Array) => boolean = () => true;
  #settle: ((error?: Error | null) => void) | undefined;
  #failure: Error | undefined;

  constructor(codec: Codec) {
    this.#codec = codec;
    codec.on('data', (chunk: Uint8Array) => {
      if (this.#take(chunk)) return;
      this.#settle?.(); // there is too much already: the rest is not even looked at
      codec.destroy();
    });
    codec.on('error', (error: Error) => this.#fail(error));
    codec.on('end', () => this.#fail(new Error('the compressed stream ends')));
    codec.on('close', () => this.#fail(new Error('the compressed stream is closed')));
  }

  /** Resolves when all of it has come out, or `take` has refused a chunk. */
  write(bytes: Uint8Array, take: (chunk: Uint8Array) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#take = take;
      this.#settle = (error) => {
        this.#settle = undefined;
        if (error) reject(error);
        else resolve();
      };
      this.#codec.write(bytes, (error) => this.#settle?.(error));
    });
  }

  close(): void {
    this.#codec.destroy();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#settle?.(this.#failure);
  }
}
