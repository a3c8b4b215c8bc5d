// The numbers of assembly/layout.ts, and the fields that only TypeScript uses.

export const CONTROL_BYTES = 12544;
export const COMMAND = 0;
export const STATE = 4;
export const RANGE_COUNT = 8;
export const WORKLOAD = 12;
export const SEED = 16;
export const RNG = 24;
export const CURSOR = 32;
export const OWNED = 36;
export const HOT_OWNED = 40;
export const HOT_WRITES = 44;
export const WRITES = 48;
export const CHECKS = 56;
export const VIOLATIONS = 64;
export const PAGES_WRITTEN = 72;
export const KICKS = 76;
export const POSITION = 80;
export const RECORDED = 84;
export const RING_RAM = 88;
export const RING_RECEIVED = 92;
export const RING_DIRTY = 96;
export const RING_PAGE = 100;
/** u32, {@link UNTHROTTLED} for no limit; for the thread's loop. */
export const PAGES_PER_SECOND = 104;
export const CHANGED_LINES = 108;
/** f64; for the thread's loop. */
export const FILL_SHARE = 240;
/** u32, percent of its time that the vCPU sleeps; for the thread's loop. */
export const THROTTLE = 248;

export const RECORDS = 112;
export const RECORD_BYTES = 16;
export const RECORD_LIMIT = 8;
export const RECORD_BLOCK = 0;
export const RECORD_PAGE = 4;
export const RECORD_EXPECTED = 8;
export const RECORD_FOUND = 12;

export const RANGES = 256;
export const RANGE_BYTES = 48;
export const RANGE_LIMIT = 256;
export const RANGE_PAGES = 0;
export const RANGE_HOT = 4;
export const RANGE_BLOCK = 8;
export const RANGE_BANK = 12;
export const RANGE_SEGMENT_PAGE = 16;
export const RANGE_BLOCK_PAGE = 20;
export const RANGE_RAM = 24;
export const RANGE_RECEIVED = 28;
export const RANGE_DIRTY = 32;
export const RANGE_GENERATIONS = 36;
export const RANGE_KEY = 40;

export const FOUND_ZERO = 254;
export const FOUND_OTHER = 255;
