// A vCPU's control block, in the user region of bank 0. src/control-layout.ts holds the same
// numbers; a test compares the two.
//
//   0     command and state, each a u32 on which threads wait
//   8     what the workload is and where it stands
//   48    counters
//   112   the first violations
//   256   ranges: the pages that the vCPU owns, one entry a segment of a RAM block

export const CONTROL_BYTES: usize = 12544;
export const COMMAND: usize = 0; // u32, written by the machine
export const STATE: usize = 4; // u32, written by the thread
export const RANGE_COUNT: usize = 8; // u32
export const WORKLOAD: usize = 12; // u32
export const SEED: usize = 16; // u64: of the patterns in the pages
export const RNG: usize = 24; // u64: state of the choice of pages
export const CURSOR: usize = 32; // u32: next page of the sequential workload
export const OWNED: usize = 36; // u32: pages in all ranges
export const HOT_OWNED: usize = 40; // u32: hot pages in all ranges
export const HOT_WRITES: usize = 44; // u32: share of writes to hot pages, of 2^32
export const WRITES: usize = 48; // u64
export const CHECKS: usize = 56; // u64
export const VIOLATIONS: usize = 64; // u64
export const PAGES_WRITTEN: usize = 72; // u32: pages of generation > 0
export const KICKS: usize = 76; // u32: rounds over the virtqueues
export const POSITION: usize = 80; // u32: progress of fill and verify
export const RECORDED: usize = 84; // u32: violations in the list
export const RING_RAM: usize = 88; // u32 ptr of the page with the first virtqueue, 0 without rings
export const RING_RECEIVED: usize = 92; // u32 ptr
export const RING_DIRTY: usize = 96; // u32 ptr
export const RING_PAGE: usize = 100; // u32: that page in its segment
export const CHANGED_LINES: usize = 108; // u32: the first 64-byte lines of a page, that writes change

export const RECORDS: usize = 112;
export const RECORD_BYTES: usize = 16;
export const RECORD_LIMIT: u32 = 8;
export const RECORD_BLOCK: usize = 0; // u32: index of the RAM block
export const RECORD_PAGE: usize = 4; // u32: target page in the block
export const RECORD_EXPECTED: usize = 8; // u32: generation
export const RECORD_FOUND: usize = 12; // u32: see FOUND_* below, else how many generations older

export const RANGES: usize = 256;
export const RANGE_BYTES: usize = 48;
export const RANGE_LIMIT: u32 = 256;
export const RANGE_PAGES: usize = 0; // u32
export const RANGE_HOT: usize = 4; // u32: the first pages of the range that are hot
export const RANGE_BLOCK: usize = 8; // u32: index of the RAM block
export const RANGE_BANK: usize = 12; // u32: bank of the segment
export const RANGE_SEGMENT_PAGE: usize = 16; // u32: first page, in the segment
export const RANGE_BLOCK_PAGE: usize = 20; // u32: first page, in the block
export const RANGE_RAM: usize = 24; // u32 ptr of the first page, in the segment's bank
export const RANGE_RECEIVED: usize = 28; // u32 ptr, in the segment's bank
export const RANGE_DIRTY: usize = 32; // u32 ptr, in the segment's bank
export const RANGE_GENERATIONS: usize = 36; // u32 ptr of the first page's u32 generation, in bank 0
export const RANGE_KEY: usize = 40; // u32: hash of the block's name, part of the patterns

export const WORKLOAD_SEQUENTIAL: u32 = 1;
export const WORKLOAD_RANDOM: u32 = 2;
export const WORKLOAD_HOTSET: u32 = 3;

export const OLDEST_STALE: u32 = 128; // generations looked back to
export const FOUND_AS_EXPECTED: u32 = 0;
export const FOUND_ZERO: u32 = 254;
export const FOUND_OTHER: u32 = 255;

// Virtqueues in low guest memory: descriptors, available ring, used ring, a page each.
export const RING_QUEUES: u32 = 3;
export const QUEUE_PAGES: u32 = 3;
export const AVAILABLE_PAGE: u32 = 1;
export const USED_PAGE: u32 = 2;
export const RING_INDEX: usize = 2; // le16, in either ring
