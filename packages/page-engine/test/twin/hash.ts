import type { TwinBank } from './bank.ts';
import { zeroTwin } from './zero.ts';

const u64 = (n: bigint): bigint => BigInt.asUintN(64, n);
const rotl = (n: bigint, by: bigint): bigint => u64((n << by) | (u64(n) >> (64n - by)));
const [P1, P2, P3, P4] = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
] as const;
const round = (acc: bigint, lane: bigint): bigint => u64(rotl(u64(acc + lane * P2), 31n) * P1);

/** Computes XXH64 with seed 0 over whole stripes, by the algorithm's definition. */
export function xxh64(bytes: Uint8Array): bigint {
  const lanes = new BigUint64Array(bytes.slice().buffer);
  const acc = [u64(P1 + P2), P2, 0n, u64(-P1)];
  for (let i = 0; i < lanes.length; i++) acc[i % 4] = round(acc[i % 4]!, lanes[i]!);
  let hash = u64(rotl(acc[0]!, 1n) + rotl(acc[1]!, 7n) + rotl(acc[2]!, 12n) + rotl(acc[3]!, 18n));
  for (const lane of acc) hash = u64((hash ^ round(0n, lane)) * P1 + P4);
  hash = u64(hash + BigInt(bytes.length));
  hash = u64((hash ^ (hash >> 33n)) * P2);
  hash = u64((hash ^ (hash >> 29n)) * P3);
  return hash ^ (hash >> 32n);
}

const ZERO_HASH = xxh64(new Uint8Array(4096));

/** Checksums of pages, in big integers. */
export function hashTwin(bank: TwinBank) {
  const { isZero } = zeroTwin(bank);
  const hashPage = (ptr: number): bigint => (isZero(ptr) ? ZERO_HASH : xxh64(bank.at(ptr)));
  return {
    hashPage,
    hashPages(ptr: number, pages: number, previous: bigint): bigint {
      let folded = u64(previous);
      for (let page = 0; page < pages; page++) {
        folded = u64((rotl(folded, 31n) ^ hashPage(ptr + page * 4096)) * P1 + P4);
      }
      return folded;
    },
  };
}
