import { expect } from 'vitest';
import {
  type GuestRam,
  type RamBlock,
  type RamReceiver,
  RamSender,
  type RamSenderOptions,
} from '../src/index.ts';

export const KIB = 1024;

/** Takes every chunk that the sender has, copied. */
export function drain(sender: RamSender, maxBytes?: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let chunk = sender.next(maxBytes); chunk; chunk = sender.next(maxBytes)) {
    chunks.push(chunk.bytes.slice());
    chunk.release();
  }
  return chunks;
}

export function join(chunks: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    joined.set(chunk, at);
    at += chunk.length;
  }
  return joined;
}

/**
 * Feeds a receiver as a transport does: reads of the given sizes in turn, the rest of each read kept
 * at the start of the input, which may have moved.
 */
export function feed(receiver: RamReceiver, bytes: Uint8Array, readSizes: readonly number[]): void {
  let kept = 0;
  let at = 0;
  for (let turn = 0; at < bytes.length; turn++) {
    const { input } = receiver;
    const size = Math.min(
      readSizes[turn % readSizes.length]!,
      input.bytes.length - kept,
      bytes.length - at,
    );
    input.bytes.set(bytes.subarray(at, at + size), kept);
    at += size;
    const result = receiver.decode(0, kept + size);
    if (result.error !== undefined) throw result.error;
    receiver.input.bytes.set(input.bytes.subarray(result.consumed, kept + size));
    kept = kept + size - result.consumed;
    // Not by `expect`, which costs more than a small read.
    if (result.status !== 'need-more' || (kept > 0 && result.bytesNeeded <= kept)) {
      throw new Error(`${result.status}, ${result.bytesNeeded} bytes, with ${kept} kept`);
    }
  }
  expect(kept).toBe(0);
}

/** Fills pages of a block with bytes that tell page and generation apart; true marks a written page. */
export function writePages(block: RamBlock, pages: readonly number[], generation: number): void {
  for (const page of pages) {
    const bytes = new Uint8Array(4096);
    const words = new Uint32Array(bytes.buffer);
    // Only the last word, so that a zero test that stops early is caught.
    words[1023] = generation + 1;
    words[page % 1023] = page;
    block.write(page * 4096, bytes);
  }
}

export function sameContent(a: GuestRam, b: GuestRam): void {
  for (const block of a.blocks) {
    const other = b.block(block.name)!;
    expect(Buffer.compare(block.read(0, block.lengthBytes), other.read(0, other.lengthBytes))).toBe(
      0,
    );
    expect(other.checksum()).toBe(block.checksum());
  }
}

/** Makes a sender of a guest that runs: all pages present, none owed. */
export function runningSender(ram: GuestRam, options: RamSenderOptions = {}): RamSender {
  ram.setAllReceived(true);
  return new RamSender(ram, options);
}

/** Encodes one page record by hand. */
export function record(
  offset: bigint | number,
  flags: number,
  options: { name?: string; body?: Uint8Array } = {},
): Uint8Array {
  const head = new Uint8Array(8);
  new DataView(head.buffer).setBigUint64(0, BigInt(offset) | BigInt(flags));
  const name =
    options.name === undefined
      ? new Uint8Array()
      : Uint8Array.of(options.name.length, ...new TextEncoder().encode(options.name));
  return join([head, name, options.body ?? new Uint8Array()]);
}

export const FLAG_ZERO = 0x02;
export const FLAG_PAGE = 0x08;
export const FLAG_EOS = 0x10;
export const FLAG_CONTINUE = 0x20;
export const FLAG_XBZRLE = 0x40;
