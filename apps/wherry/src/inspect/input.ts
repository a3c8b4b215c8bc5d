import { spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { PassThrough, pipeline, Readable, type Transform } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { ByteReader } from '@wherry/bytes';
import { type ContainerModel, readContainer } from '@wherry/snapshot';
import { StreamError } from '@wherry/stream';
import { CliError } from '../cli-error.ts';
import { type ByteSource, fileSource, readWith, streamSource } from './byte-source.ts';

/** A file or standard input, unpacked where it is packed. */
export interface Input {
  readonly source: ByteSource;
  /** The first bytes of what is read, for a guess at what it is when it is no stream. */
  readonly head: Uint8Array;
  /** What the stream was unpacked from; offsets count in what came out. */
  readonly packed?: string;
  /** The libvirt image around a packed stream. */
  readonly container?: ContainerModel;
  close(): void;
}

const HEAD_BYTES = 256 * 1024;
const CHUNK_BYTES = 1024 * 1024;

/** What unpacks, by libvirt's name for it: a program where Node has no such decompressor. */
const UNPACKERS: Readonly<Record<string, { readonly magic: string; readonly program?: string }>> = {
  gzip: { magic: '1f8b08' },
  zstd: { magic: '28b52ffd' },
  xz: { magic: 'fd377a585a00', program: 'xz' },
  bzip2: { magic: '425a68', program: 'bzip2' },
  lzop: { magic: '894c5a4f000d0a1a0a', program: 'lzop' },
};

/**
 * Opens a file, or standard input for `-`, and unpacks what is packed as a whole or in a libvirt image.
 *
 * @throws CliError 2 when it cannot be opened, 1 when a program to unpack it is missing; a WherryError for a damaged image
 */
export async function openInput(path: string): Promise<Input> {
  const fd = path === '-' ? undefined : openFile(path);
  const close = (): void => {
    if (fd !== undefined) closeSync(fd);
  };
  try {
    const opened = fd === undefined ? streamSource(process.stdin) : fileSource(fd);
    const file = await peek(opened);
    const packed = packingOf(file.head);
    const content = packed === undefined ? file : await peek(unpack(file.source, packed));
    const input = startsWith(content.head, LIBVIRT_MAGIC) ? await openImage(content) : content;
    const layers = [packed, input.packed].filter((layer) => layer !== undefined);
    return { ...input, ...(layers.length === 0 ? {} : { packed: layers.join(', ') }), close };
  } catch (error) {
    close();
    throw error;
  }
}

interface Content {
  readonly source: ByteSource;
  readonly head: Uint8Array;
  readonly packed?: string;
  readonly container?: ContainerModel;
}

function packingOf(head: Uint8Array): string | undefined {
  return Object.keys(UNPACKERS).find((name) => startsWith(head, UNPACKERS[name]!.magic));
}

const LIBVIRT_MAGIC = Buffer.from('LibvirtQemud').toString('hex');

/** Opens a libvirt image: the stream in it where it is packed, otherwise the image, which the walk reads. */
async function openImage({ source, head }: Content): Promise<Content> {
  const recorded = new Recorded(source);
  const reader = new ByteReader({ storage: new Uint8Array(CHUNK_BYTES) });
  let container: ContainerModel | undefined;
  try {
    container = await readWith(readContainer(reader), reader, recorded);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
    return { source: recorded.replay(), head }; // the walk finds the same damage, and says where
  }
  const unpacker = UNPACKERS[container?.compression ?? ''];
  if (container === undefined || unpacker === undefined) return { source: recorded.replay(), head };
  const rest = reader.copy(reader.available);
  const unpacked = unpack(behind(rest, source), container.compression);
  return { ...(await peek(unpacked)), packed: `libvirt (${container.compression})`, container };
}

/** Remembers what was read, to read it once more. */
class Recorded implements ByteSource {
  readonly #source: ByteSource;
  readonly #pieces: Uint8Array[] = [];

  constructor(source: ByteSource) {
    this.#source = source;
  }

  async read(into: Uint8Array): Promise<number> {
    const count = await this.#source.read(into);
    this.#pieces.push(into.slice(0, count));
    return count;
  }

  replay(): ByteSource {
    const { seek } = this.#source;
    if (seek === undefined) return behind(Buffer.concat(this.#pieces), this.#source);
    seek(0);
    return this.#source;
  }
}

/** Reads the head of a source, and gives a source that begins with it. */
async function peek(source: ByteSource): Promise<Content> {
  const buffer = new Uint8Array(HEAD_BYTES);
  let length = 0;
  for (let count = 1; count > 0 && length < buffer.length; length += count) {
    count = await source.read(buffer.subarray(length));
  }
  const head = buffer.slice(0, length);
  if (source.seek === undefined) return { source: behind(head, source), head };
  source.seek(0);
  return { source, head };
}

/** Gives some bytes, then those of a source. */
function behind(first: Uint8Array, { read, sizeBytes }: ByteSource): ByteSource {
  let rest = first;
  return {
    read: (into) => {
      if (rest.length === 0) return read(into);
      const piece = rest.subarray(0, into.length);
      into.set(piece);
      rest = rest.subarray(piece.length);
      return piece.length;
    },
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
  };
}

function unpack(source: ByteSource, packed: string): ByteSource {
  const input = Readable.from(chunksOf(source), { objectMode: false });
  const { program } = UNPACKERS[packed]!;
  const unpacked =
    program === undefined
      ? pipeline(input, packed === 'gzip' ? createGunzip() : createZstdDecompress(), () => {})
      : unpackBy(program, input);
  const { read } = streamSource(unpacked);
  return {
    read: async (into) => {
      try {
        return await read(into);
      } catch (cause) {
        if (cause instanceof CliError) throw cause;
        throw new StreamError('CONTAINER_INVALID', `The ${packed} data cannot be unpacked`, {
          found: cause instanceof Error ? cause.message : String(cause),
          path: [packed],
          likely: 'The file is cut or damaged, or was not written to its end',
          cause,
        });
      }
    },
  };
}

function unpackBy(program: string, input: Readable): Readable {
  const output: Transform = new PassThrough();
  const child = spawn(program, ['-dc'], { stdio: ['pipe', 'pipe', 'pipe'] });
  let complaint = '';
  child.once('error', () =>
    output.destroy(
      new CliError(
        `The stream is packed by ${program}, and there is no such program here: install it, or unpack the file elsewhere`,
        1,
      ),
    ),
  );
  child.stderr.on('data', (text: Buffer) => (complaint += text.toString().slice(0, 1000)));
  child.stdin.on('error', () => {}); // it ends before its input when the data is damaged
  input.pipe(child.stdin);
  child.stdout.pipe(output, { end: false });
  child.once('close', (code) => {
    if (code === 0) output.end();
    else output.destroy(new Error(complaint.trim() || `${program} ended with ${code}`));
  });
  output.once('close', () => child.kill());
  return output;
}

async function* chunksOf(source: ByteSource): AsyncGenerator<Uint8Array> {
  for (;;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const count = await source.read(chunk);
    if (count === 0) return;
    yield chunk.subarray(0, count);
  }
}

function openFile(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new CliError(`Cannot read ${path}: ${reasonOf(error)}`, 2);
  }
  if (fstatSync(fd).isDirectory()) {
    closeSync(fd);
    throw new CliError(`Cannot read ${path}: it is a directory; name a file with a stream`, 2);
  }
  return fd;
}

function reasonOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return 'there is no such file; check the path';
  if (code === 'EACCES') return 'permission denied; make it readable, or run as its owner';
  return error instanceof Error ? error.message : String(error);
}

function startsWith(bytes: Uint8Array, magic: string): boolean {
  return Buffer.from(bytes.subarray(0, magic.length / 2)).toString('hex') === magic;
}
