// The measures that benchmarks stand beside: what the machine can do at best with the same bytes.

// Reads one word of each cache line; the sum keeps the loads alive.
export function readTouch(ptr: usize, lengthBytes: usize): u64 {
  let a: u64 = 0;
  let b: u64 = 0;
  const end = ptr + (lengthBytes & ~127);
  for (let at = ptr; at < end; at += 128) {
    a += load<u64>(at);
    b += load<u64>(at, 64);
  }
  return a + b;
}

export function copy(to: usize, from: usize, lengthBytes: usize): void {
  memory.copy(to, from, lengthBytes);
}
