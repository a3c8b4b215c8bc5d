// Places and sizes inside a bank. src/layout.ts holds the same numbers; a test compares the two.
//
//   0     never used (a null pointer stays a null pointer)
//   64    control: u32 doorbell, u32 waiting vCPUs, u32 arrival
//   128   receiver state of each channel                       RECEIVER_BYTES each
//   256   sender state                                         64 bytes
//   320   fault slots: of each vCPU, then of the devices        SLOT_BYTES each
//         block table, one entry a RAM block in every bank     ENTRY_BYTES each
//         list of runs that a walk over a bitmap found            MAX_RUNS * RUN_BYTES
//         edges of changed runs in a page                         EDGES_BYTES
//         bitmaps of each segment: dirty, owed, received, written
//         reserved region of the user (bank 0)
//         send buffers, an input buffer for each receiver
//         XBZRLE cache: pages, then a tag each
//         multifd: of each channel a packet and its pages, then lists of pages to send
//         RAM, aligned to 2 MiB when a block has huge pages
//
// Nothing here is static data: several modules can work on one memory at once.

export const TARGET_PAGE_SHIFT: u32 = 12;
export const TARGET_PAGE_BYTES: u32 = 4096;

export const DOORBELL_PTR: usize = 64;
export const WAITING_PTR: usize = 68;
export const ARRIVAL_PTR: usize = 72; // of bank 0: bank << 20 | page of that bank, where content last came
export const RECEIVER_PTR: usize = 128;
export const RECEIVER_BYTES: usize = 64;
export const SENDER_PTR: usize = 256;
export const SLOTS_PTR: usize = 320;

// Fault slot: written by its vCPU, except that the migration thread lowers the state to wake it.
export const SLOT_BYTES: usize = 448;
export const SLOT_STATE: usize = 0; // u32: 0 running, 1 waiting
export const SLOT_BLOCK: usize = 4; // u32: index of the RAM block
export const SLOT_PAGE: usize = 8; // u32: target page within the block's segment in this bank
export const SLOT_COUNT: usize = 12; // u32: faults so far
export const SLOT_TOTAL_MS: usize = 16; // f64
export const SLOT_HISTOGRAM: usize = 32; // u32 x 96: bucket b starts at 2^(b>>2) * (1 + (b&3)/4) us
export const HISTOGRAM_BUCKETS: u32 = 96;

// Entry of the block table. A block has at most one segment in a bank.
export const ENTRY_BYTES: usize = 384;
export const ENTRY_RAM: usize = 0; // u32 ptr of the segment's first byte
export const ENTRY_DIRTY: usize = 4; // u32 ptr
export const ENTRY_OWED: usize = 8; // u32 ptr
export const ENTRY_RECEIVED: usize = 12; // u32 ptr
export const ENTRY_WRITTEN: usize = 16; // u32 ptr
export const ENTRY_HOST_PAGES: usize = 20; // u32: target pages in a host page, a power of two
export const ENTRY_FIRST_PAGE: usize = 24; // u32: block page of the segment's first page
export const ENTRY_PAGES: usize = 28; // u32: pages of the segment, 0 when the block has none here
export const ENTRY_BLOCK_PAGES: usize = 32; // u32: pages of the whole block
export const ENTRY_NAME_BYTES: usize = 36; // u32
export const ENTRY_NAME: usize = 64; // up to 255 bytes

// Runs of a bitmap: u32 first page, u32 end.
export const RUN_BYTES: usize = 8;
export const MAX_RUNS: u32 = 512;
export const ZERO_RUN: u32 = 2147483648; // in a run's end: its pages are zero
export const MAX_ZERO_PAGES: u32 = 65536; // of one call that collects runs: it is to stay short

// Begins and ends of changed runs in a page, u16 each, and eleven more than there can be.
export const EDGES_BYTES: usize = 8256;

// Tag of a page in the XBZRLE cache. A page that was sent since so many syncs is not pushed out.
export const CACHE_TAG_BYTES: usize = 8;
export const CACHE_LIFETIME: u32 = 2;

// Receiver state: of the main channel, then of the one that brings requested pages in postcopy
export const RECEIVERS: u32 = 2;
export const RX_BLOCK: usize = 0; // u32: index + 1 of the current block, 0 none
export const RX_POSTCOPY: usize = 4; // u32
export const RX_GATHER_BLOCK: usize = 8; // u32: index + 1 of the block of an incomplete host page, 0 none
export const RX_GATHER_NEXT: usize = 12; // u32: the only page that may come next
export const RX_POSITION: usize = 16; // u32: ptr of the first byte that was not consumed
export const RX_NEEDED: usize = 20; // u32: bytes of the incomplete record, as far as known
export const RX_WORD_BLOCK: usize = 24; // u32: index + 1 of the block of the stopping record, 0 unknown
export const RX_EXPECTED: usize = 28; // u32: expected page; where an XBZRLE encoding is wrong
export const RX_WORD: usize = 32; // u64: offset | flags of the stopping record
export const RX_NORMAL: usize = 40; // u32: pages of this call
export const RX_ZERO: usize = 44; // u32
export const RX_PLACED: usize = 48; // u32: host pages placed in this call
export const RX_XBZRLE: usize = 52; // u32: pages of this call
export const RX_OTHER: usize = 56; // u32 ptr of the other channel's receiver state
export const RX_LAST: usize = 60; // u32 ptr of the last page that came with its content

// Sender state
export const TX_NEXT_PAGE: usize = 0; // u32: first page of the segment that was not looked at
export const TX_NORMAL: usize = 4; // u32: pages of this call
export const TX_ZERO: usize = 8; // u32
export const TX_CACHE: usize = 12; // u32 ptr of the XBZRLE cache
export const TX_CACHE_SLOTS: usize = 16; // u32: a power of two; 0 while XBZRLE is not used
export const TX_CACHE_AGE: usize = 20; // u32: syncs of the dirty log so far
export const TX_XBZRLE: usize = 24; // u32: pages of this call that were sent as XBZRLE
export const TX_UNCHANGED: usize = 28; // u32: that were not sent, being as they were
export const TX_XBZRLE_BYTES: usize = 32; // u32
export const TX_CACHE_MISS: usize = 36; // u32
export const TX_EDGES: usize = 44; // u32 ptr of room for edges
export const TX_OVERFLOW: usize = 40; // u32: whose encoding would be longer than a page
export const TX_LIST: usize = 48; // u32 ptr of a list for pages with content; 0 to write records of them
export const TX_LIST_ROOM: usize = 52; // u32: pages that fit into the list
export const TX_LISTED: usize = 56; // u32: pages of this call that were listed

// Multifd: a packet's head, of which the last part is the offsets of its pages, be64 each.
export const PACKET_HEAD_BYTES: usize = 4096; // room for it
export const PACKET_OFFSETS: usize = 320;
export const PACKET_PAGES: u32 = 128;

// A list of pages: u32 pages within a segment.
export const LIST_PAGES: u32 = 256;

// What decode stopped at
export const DECODE_NEED_MORE: i32 = 0;
export const DECODE_RECORD: i32 = 1;
export const DECODE_FOREIGN: i32 = 2; // the page lies in another bank
export const DECODE_UNKNOWN_BLOCK: i32 = 3;
export const DECODE_NO_BLOCK: i32 = 4;
export const DECODE_OUT_OF_RANGE: i32 = 5;
export const DECODE_FILL: i32 = 6;
export const DECODE_RECEIVED: i32 = 7;
export const DECODE_ORDER: i32 = 8;
export const DECODE_XBZRLE_ENCODING: i32 = 9;
export const DECODE_XBZRLE_LENGTH: i32 = 10;
export const DECODE_XBZRLE_MISSING: i32 = 11;
export const DECODE_XBZRLE_DATA: i32 = 12;
export const DECODE_GATHERED: i32 = 13; // the other channel is bringing this host page
