// What a page holds at a generation: a stream of 64-bit xorshift in eight lanes, seeded by the page
// and the generation. It does not compress and is never zero. Generation 0 is a page of zeros. Behind
// the lines that writes change, a page holds what its first generation would.

const PAGE_BYTES: usize = 4096;
const LINE_SHIFT: u32 = 6;

// The finalizer of splitmix64.
// @ts-ignore: decorator
@inline
export function mix(x: u64): u64 {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// @ts-ignore: decorator
@inline
function lanes(key: u64, generation: u32, at: u64): v128 {
  const seed = mix(key + (<u64>generation << 4) * 0x9e3779b97f4a7c15 + at);
  // Zero is the one state that xorshift never leaves.
  return i64x2.replace_lane(i64x2.splat(<i64>(seed | 1)), 1, <i64>(mix(seed) | 1));
}

// @ts-ignore: decorator
@inline
function step(s: v128): v128 {
  s = v128.xor(s, i64x2.shl(s, 13));
  s = v128.xor(s, i64x2.shr_u(s, 7));
  return v128.xor(s, i64x2.shl(s, 17));
}

export function writePattern(ptr: usize, key: u64, generation: u32, lines: u32): void {
  const middle = ptr + (<usize>lines << LINE_SHIFT);
  writeLines(ptr, middle, key, generation);
  writeLines(middle, ptr + PAGE_BYTES, ~key, 1);
}

function writeLines(ptr: usize, end: usize, key: u64, generation: u32): void {
  let a = lanes(key, generation, 0), b = lanes(key, generation, 1);
  let c = lanes(key, generation, 2), d = lanes(key, generation, 3);
  for (; ptr < end; ptr += 64) {
    v128.store(ptr, (a = step(a)));
    v128.store(ptr, (b = step(b)), 16);
    v128.store(ptr, (c = step(c)), 32);
    v128.store(ptr, (d = step(d)), 48);
  }
}

export function holdsZero(ptr: usize): bool {
  let found = i64x2.splat(0);
  for (let end = ptr + PAGE_BYTES; ptr < end; ptr += 64) {
    const ab = v128.or(v128.load(ptr), v128.load(ptr, 16));
    found = v128.or(found, v128.or(ab, v128.or(v128.load(ptr, 32), v128.load(ptr, 48))));
  }
  return !v128.any_true(found);
}

export function holds(ptr: usize, key: u64, generation: u32, lines: u32): bool {
  if (generation == 0) return holdsZero(ptr);
  const middle = ptr + (<usize>lines << LINE_SHIFT);
  return holdsLines(ptr, middle, key, generation) && holdsLines(middle, ptr + PAGE_BYTES, ~key, 1);
}

function holdsLines(ptr: usize, end: usize, key: u64, generation: u32): bool {
  let a = lanes(key, generation, 0), b = lanes(key, generation, 1);
  let c = lanes(key, generation, 2), d = lanes(key, generation, 3);
  let wrong = i64x2.splat(0);
  for (; ptr < end; ptr += 64) {
    const wa = v128.xor(v128.load(ptr), (a = step(a)));
    const wb = v128.xor(v128.load(ptr, 16), (b = step(b)));
    const wc = v128.xor(v128.load(ptr, 32), (c = step(c)));
    const wd = v128.xor(v128.load(ptr, 48), (d = step(d)));
    wrong = v128.or(wrong, v128.or(v128.or(wa, wb), v128.or(wc, wd)));
  }
  return !v128.any_true(wrong);
}
