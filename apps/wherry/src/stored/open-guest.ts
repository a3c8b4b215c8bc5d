import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { WherryError } from '@wherry/bytes';
import {
  RamIndex,
  type RandomAccess,
  type Scratch,
  StoredGuest,
  type StreamModel,
} from '@wherry/snapshot';
import { CliError } from '../cli-error.ts';
import { type ByteSource, fileSource } from '../inspect/byte-source.ts';
import { diagnose, formatDiagnosis } from '../inspect/diagnosis.ts';
import { openInput } from '../inspect/input.ts';
import { escapeControls } from '../inspect/output.ts';
import { ReadProgress } from '../inspect/read-progress.ts';
import { walkSource } from '../inspect/walk-source.ts';

const COPY_BYTES = 1024 * 1024;

/** A guest in a file, and what else its stream says. */
export interface OpenedGuest extends Disposable {
  readonly guest: StoredGuest;
  readonly model: StreamModel;
  /** What the stream was unpacked from. */
  readonly packed: string | undefined;
}

/**
 * Opens a guest that a stream, a mapped-ram file or a libvirt save image holds: finds where each page is,
 * and reads none. What is packed, or comes through a pipe, goes to a temporary file first.
 *
 * @param isQuiet whether to leave out the progress of a long read
 * @throws CliError 1 when the file holds no whole guest, 2 when it cannot be opened
 */
export async function openStoredGuest(path: string, isQuiet: boolean): Promise<OpenedGuest> {
  const progress = isQuiet ? undefined : new ReadProgress(process.stderr, nameOf(path));
  const fds: number[] = [];
  const close = (): void => {
    for (const fd of fds) closeSync(fd);
  };
  const temporary = (): number => {
    const fd = openTemporary();
    fds.push(fd);
    return fd;
  };
  try {
    const input = await openInput(path);
    try {
      const isPlain = input.source.seek !== undefined;
      const fd = isPlain ? openSync(path, 'r') : temporary();
      if (isPlain) fds.push(fd);
      else await copy(input.source, fd);
      const source = fileSource(fd);
      const file = accessOf(fd, source.sizeBytes ?? 0);
      const ramSink = new RamIndex(file, {
        scratch: () => scratchOf(temporary()),
        inflate: (packed, maxOutputLength) => inflateSync(packed, { maxOutputLength }),
      });
      const { walk, error } = await walkSource(
        source,
        { ramSink, container: input.container },
        (offset) => progress?.show(offset, source.sizeBytes),
      );
      if (error !== undefined) throw unusable(path, error, walk.path);
      const guest = new StoredGuest(walk.model, ramSink, file);
      return { guest, model: walk.model, packed: input.packed, [Symbol.dispose]: close };
    } finally {
      input.close();
      progress?.done();
    }
  } catch (error) {
    close();
    throw error instanceof WherryError ? unusable(path, error, []) : error;
  }
}

function unusable(path: string, error: WherryError, where: readonly string[]): CliError {
  return new CliError(
    escapeControls(`${nameOf(path)}: ${formatDiagnosis(diagnose(error, where))}`),
    1,
  );
}

function nameOf(path: string): string {
  return path === '-' ? 'standard input' : path;
}

function accessOf(fd: number, sizeBytes: number): RandomAccess {
  return { sizeBytes, read: (into, offset) => readSync(fd, into, 0, into.length, offset) };
}

function scratchOf(fd: number): Scratch {
  let sizeBytes = 0;
  return {
    get sizeBytes() {
      return sizeBytes;
    },
    read: (into, offset) => readSync(fd, into, 0, into.length, offset),
    write: (bytes, offset) => {
      writeAll(fd, bytes, offset);
      sizeBytes = Math.max(sizeBytes, offset + bytes.length);
    },
  };
}

/** Opens a file that has no name any more: it is gone with this process, however that ends. */
function openTemporary(): number {
  const path = join(tmpdir(), `wherry-${process.pid}-${Math.random().toString(36).slice(2)}`);
  try {
    const fd = openSync(path, 'wx+', 0o600);
    rmSync(path);
    return fd;
  } catch (cause) {
    throw cannotWrite(cause);
  }
}

async function copy(source: ByteSource, fd: number): Promise<void> {
  const buffer = new Uint8Array(COPY_BYTES);
  for (let at = 0; ; ) {
    const count = await source.read(buffer);
    if (count === 0) return;
    writeAll(fd, buffer.subarray(0, count), at);
    at += count;
  }
}

function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  try {
    for (let at = 0; at < bytes.length; ) {
      at += writeSync(fd, bytes, at, bytes.length - at, offset + at);
    }
  } catch (cause) {
    throw cannotWrite(cause);
  }
}

function cannotWrite(cause: unknown): CliError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new CliError(
    `Cannot unpack into a temporary file in ${tmpdir()}: ${why}; name another folder with TMPDIR`,
    1,
  );
}
