import { PageEngineError } from './errors.ts';

// The numbers of assembly/layout.ts, which draws the bank; layout.test.ts compares the two files.
export const TARGET_PAGE_SHIFT = 12;
/** Counts the bytes of a target page, the unit of the bitmaps and of page records. */
export const TARGET_PAGE_BYTES = 4096;
export const DOORBELL_PTR = 64;
export const WAITING_PTR = 68;
export const ARRIVAL_PTR = 72;
export const RECEIVER_PTR = 128;
export const RECEIVER_BYTES = 64;
export const SENDER_PTR = 256;
export const SLOTS_PTR = 320;
export const SLOT_BYTES = 448;
export const SLOT_STATE = 0;
export const SLOT_BLOCK = 4;
export const SLOT_PAGE = 8;
export const SLOT_COUNT = 12;
export const SLOT_TOTAL_MS = 16;
export const SLOT_HISTOGRAM = 32;
export const HISTOGRAM_BUCKETS = 96;
export const ENTRY_BYTES = 384;
export const ENTRY_RAM = 0;
export const ENTRY_DIRTY = 4;
export const ENTRY_OWED = 8;
export const ENTRY_RECEIVED = 12;
export const ENTRY_WRITTEN = 16;
export const ENTRY_HOST_PAGES = 20;
export const ENTRY_FIRST_PAGE = 24;
export const ENTRY_PAGES = 28;
export const ENTRY_BLOCK_PAGES = 32;
export const ENTRY_NAME_BYTES = 36;
export const ENTRY_NAME = 64;
export const RUN_BYTES = 8;
export const MAX_RUNS = 512;
export const ZERO_RUN = 2147483648;
export const MAX_ZERO_PAGES = 65536;
export const EDGES_BYTES = 8256;
export const CACHE_TAG_BYTES = 8;
export const CACHE_LIFETIME = 2;
export const RECEIVERS = 2;
export const RX_BLOCK = 0;
export const RX_POSTCOPY = 4;
export const RX_GATHER_BLOCK = 8;
export const RX_GATHER_NEXT = 12;
export const RX_POSITION = 16;
export const RX_NEEDED = 20;
export const RX_WORD_BLOCK = 24;
export const RX_EXPECTED = 28;
export const RX_WORD = 32;
export const RX_NORMAL = 40;
export const RX_ZERO = 44;
export const RX_PLACED = 48;
export const RX_XBZRLE = 52;
export const RX_OTHER = 56;
export const RX_LAST = 60;
export const TX_NEXT_PAGE = 0;
export const TX_NORMAL = 4;
export const TX_ZERO = 8;
export const TX_CACHE = 12;
export const TX_CACHE_SLOTS = 16;
export const TX_CACHE_AGE = 20;
export const TX_XBZRLE = 24;
export const TX_UNCHANGED = 28;
export const TX_XBZRLE_BYTES = 32;
export const TX_CACHE_MISS = 36;
export const TX_OVERFLOW = 40;
export const TX_EDGES = 44;
export const TX_LIST = 48;
export const TX_LIST_ROOM = 52;
export const TX_LISTED = 56;
export const PACKET_HEAD_BYTES = 4096;
export const PACKET_OFFSETS = 320;
export const PACKET_PAGES = 128;
export const LIST_PAGES = 256;
export const DECODE_NEED_MORE = 0;
export const DECODE_RECORD = 1;
export const DECODE_FOREIGN = 2;
export const DECODE_UNKNOWN_BLOCK = 3;
export const DECODE_NO_BLOCK = 4;
export const DECODE_OUT_OF_RANGE = 5;
export const DECODE_FILL = 6;
export const DECODE_RECEIVED = 7;
export const DECODE_ORDER = 8;
export const DECODE_XBZRLE_ENCODING = 9;
export const DECODE_XBZRLE_LENGTH = 10;
export const DECODE_XBZRLE_MISSING = 11;
export const DECODE_XBZRLE_DATA = 12;
export const DECODE_GATHERED = 13;

/** Holds the longest page record: be64, name length, name, encoding and length of XBZRLE, page. */
export const MAX_RECORD_BYTES: number = 8 + 1 + 255 + 3 + TARGET_PAGE_BYTES;
/** Is added to the input buffer, so that a whole ioBufferBytes can follow an incomplete record. */
export const INPUT_SLACK_BYTES = 8192;

const WASM_PAGE_BYTES = 65536;
const LINE_BYTES = 64;
/** Pages in one word of a bitmap. */
const BITMAP_WORD_PAGES = 64;
const MAX_BLOCKS = 1024;
const MAX_VCPUS = 4096;
/** One a channel id. */
const MAX_CHANNELS = 255;
/** So that a channel has one at hand when it is through with another. */
const LISTS_PER_CHANNEL = 2;
/** Limits the XBZRLE cache of a guest memory. */
export const MAX_XBZRLE_CACHE_BYTES: number = 2 ** 30;
const MAX_RAM_ALIGNMENT = 2 * 1024 * 1024;
const MAX_HOST_PAGE_BYTES = 1024 ** 3;
/** One wasm page short of 4 GiB, so that every end pointer fits into 32 bits. */
const MAX_BANK_BYTES: number = 2 ** 32 - WASM_PAGE_BYTES;

/** Describes a RAM block: its name in the stream, its length and the size of its host pages. */
export interface RamBlockSpec {
  /** 1 to 255 bytes in UTF-8, unique. */
  readonly name: string;
  /** A multiple of hostPageBytes. */
  readonly lengthBytes: number;
  /** A power of two from 4 KiB to 1 GiB; QEMU uses 4 KiB, 2 MiB and 1 GiB. */
  readonly hostPageBytes: number;
}

/** Shapes the memory of a guest. */
export interface GuestRamOptions {
  /** Makes the memory shareable with workers. Default false. */
  readonly shared?: boolean;
  /** Counts the fault slots, one a vCPU. Default 1. */
  readonly vcpus?: number;
  /** Sizes a region in bank 0 that belongs to the user. Default 0. */
  readonly reservedBytes?: number;
  /** Sizes each send buffer and, with 8 KiB more, each of two input buffers. Default 1 MiB. */
  readonly ioBufferBytes?: number;
  /** Counts the send buffers. Default 4. */
  readonly ioBuffers?: number;
  /**
   * Sizes the XBZRLE cache that a sender may use, 0 or a power of two from 4 KiB to 1 GiB. It costs
   * address space in each bank, and memory once it is used. Default 0.
   */
  readonly xbzrleCacheBytes?: number;
  /**
   * Counts the multifd channels that a migration may use, 0 to 255; each costs half a MiB of address
   * space in each bank, and memory once it is used. Default 0.
   */
  readonly multifdChannels?: number;
  /** Limits a bank. Default and maximum 4 GiB less 64 KiB. */
  readonly maxBankBytes?: number;
}

/** Locates the part of a RAM block that lies in one bank; a block has at most one in each. */
export interface SegmentPlan {
  readonly block: number;
  readonly bank: number;
  readonly ptr: number;
  readonly firstPage: number;
  readonly pages: number;
  readonly dirtyPtr: number;
  readonly owedPtr: number;
  readonly receivedPtr: number;
  readonly writtenPtr: number;
}

export interface BankPlan {
  readonly wasmPages: number;
  readonly reservedPtr: number;
  readonly sendPtrs: readonly number[];
  /** By receiver. */
  readonly inputPtrs: readonly number[];
  readonly cachePtr: number;
  /** Of each channel: PACKET_HEAD_BYTES, then the content of PACKET_PAGES pages. */
  readonly packetPtrs: readonly number[];
  readonly listPtrs: readonly number[];
  readonly segments: readonly SegmentPlan[];
}

export interface RamPlan {
  readonly options: Required<GuestRamOptions>;
  /** Counts the fault slots: the vCPUs', and one of the devices. */
  readonly slots: number;
  readonly tablePtr: number;
  readonly runsPtr: number;
  readonly edgesPtr: number;
  readonly inputBytes: number;
  readonly banks: readonly BankPlan[];
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

function bitmapBytes(pages: number): number {
  return align(Math.ceil(pages / 8), LINE_BYTES);
}

function checkedOption(
  name: string,
  value: number | undefined,
  fallback: number,
  min: number,
  max: number,
): number {
  const checked = value ?? fallback;
  if (!Number.isSafeInteger(checked) || checked < min || checked > max) {
    throw new PageEngineError('BAD_OPTION', `${name} is ${checked}, not in ${min} to ${max}`);
  }
  return checked;
}

/** @throws PageEngineError BAD_OPTION */
export function checkedCacheBytes(value: number | undefined, most: number): number {
  const bytes = checkedOption('xbzrleCacheBytes', value, 0, 0, most);
  if (bytes === 0 || (bytes >= TARGET_PAGE_BYTES && Number.isInteger(Math.log2(bytes))))
    return bytes;
  throw new PageEngineError(
    'BAD_OPTION',
    `xbzrleCacheBytes is ${bytes}, neither 0 nor a power of two no less than ${TARGET_PAGE_BYTES}`,
  );
}

function checkBlocks(blocks: readonly RamBlockSpec[]): void {
  if (blocks.length === 0 || blocks.length > MAX_BLOCKS) {
    throw new PageEngineError('BAD_BLOCK', `${blocks.length} RAM blocks, not 1 to ${MAX_BLOCKS}`);
  }
  const names = new Set<string>();
  for (const { name, lengthBytes, hostPageBytes } of blocks) {
    const refuse = (problem: string): never => {
      throw new PageEngineError('BAD_BLOCK', `RAM block ${JSON.stringify(name)}: ${problem}`, {
        block: name,
      });
    };
    const nameBytes = new TextEncoder().encode(name).length;
    if (nameBytes === 0 || nameBytes > 255) refuse(`name of ${nameBytes} bytes, not 1 to 255`);
    if (names.has(name)) refuse('the name is taken');
    names.add(name);
    if (
      !Number.isSafeInteger(hostPageBytes) ||
      hostPageBytes < TARGET_PAGE_BYTES ||
      hostPageBytes > MAX_HOST_PAGE_BYTES ||
      !Number.isInteger(Math.log2(hostPageBytes))
    ) {
      refuse(`host page of ${hostPageBytes} bytes, not a power of two from 4 KiB to 1 GiB`);
    }
    if (
      !Number.isSafeInteger(lengthBytes) ||
      lengthBytes <= 0 ||
      lengthBytes / TARGET_PAGE_BYTES >= 2 ** 31 ||
      lengthBytes % hostPageBytes !== 0
    ) {
      refuse(`length of ${lengthBytes} bytes is no multiple of ${hostPageBytes} below 8 TiB`);
    }
  }
}

/** Checks the blocks and options, fills in the defaults and decides where everything lies. */
export function planRam(blocks: readonly RamBlockSpec[], given: GuestRamOptions): RamPlan {
  checkBlocks(blocks);
  const options: Required<GuestRamOptions> = {
    shared: given.shared ?? false,
    vcpus: checkedOption('vcpus', given.vcpus, 1, 0, MAX_VCPUS),
    reservedBytes: checkedOption('reservedBytes', given.reservedBytes, 0, 0, 2 ** 31),
    ioBufferBytes: checkedOption('ioBufferBytes', given.ioBufferBytes, 2 ** 20, 8192, 2 ** 28),
    ioBuffers: checkedOption('ioBuffers', given.ioBuffers, 4, 1, 64),
    xbzrleCacheBytes: checkedCacheBytes(given.xbzrleCacheBytes, MAX_XBZRLE_CACHE_BYTES),
    multifdChannels: checkedOption('multifdChannels', given.multifdChannels, 0, 0, MAX_CHANNELS),
    maxBankBytes: checkedOption(
      'maxBankBytes',
      given.maxBankBytes,
      MAX_BANK_BYTES,
      2 ** 20,
      MAX_BANK_BYTES,
    ),
  };
  const slots = options.vcpus + 1;
  const tablePtr = SLOTS_PTR + slots * SLOT_BYTES;
  const runsPtr = align(tablePtr + blocks.length * ENTRY_BYTES, LINE_BYTES);
  const edgesPtr = align(runsPtr + MAX_RUNS * RUN_BYTES, LINE_BYTES);
  const bitmapsPtr = align(edgesPtr + EDGES_BYTES, LINE_BYTES);
  const inputBytes = options.ioBufferBytes + INPUT_SLACK_BYTES;
  const buffersBytes =
    options.ioBuffers * align(options.ioBufferBytes, TARGET_PAGE_BYTES) +
    RECEIVERS * align(inputBytes, TARGET_PAGE_BYTES);
  const cacheBytes = align(
    (options.xbzrleCacheBytes / TARGET_PAGE_BYTES) * (TARGET_PAGE_BYTES + CACHE_TAG_BYTES),
    TARGET_PAGE_BYTES,
  );
  const { multifdChannels } = options;
  const packetBytes = PACKET_HEAD_BYTES + PACKET_PAGES * TARGET_PAGE_BYTES;
  const lists = multifdChannels * LISTS_PER_CHANNEL;
  const channelsBytes =
    multifdChannels * packetBytes + align(lists * LIST_PAGES * 4, TARGET_PAGE_BYTES);
  // Four bitmaps over all that a bank could hold: a little more than any bank needs.
  const bitmapsBytes =
    4 * bitmapBytes(options.maxBankBytes / TARGET_PAGE_BYTES) + 4 * LINE_BYTES * blocks.length;

  const banks: BankPlan[] = [];
  let block = 0;
  let page = 0;
  while (block < blocks.length) {
    const bank = banks.length;
    const reservedBytes = bank === 0 ? align(options.reservedBytes, TARGET_PAGE_BYTES) : 0;
    const reservedPtr = align(bitmapsPtr + bitmapsBytes, TARGET_PAGE_BYTES);
    const buffersPtr = reservedPtr + reservedBytes;
    const segments: SegmentPlan[] = [];
    let bitmapPtr = bitmapsPtr;
    const cachePtr = buffersPtr + buffersBytes;
    const packetsPtr = cachePtr + cacheBytes;
    const listsPtr = packetsPtr + multifdChannels * packetBytes;
    let ramPtr = packetsPtr + channelsBytes;
    for (; block < blocks.length; block++, page = 0) {
      const { lengthBytes, hostPageBytes } = blocks[block]!;
      const ptr = align(ramPtr, Math.min(hostPageBytes, MAX_RAM_ALIGNMENT));
      const room = Math.max(0, Math.floor((options.maxBankBytes - ptr) / hostPageBytes));
      const left = lengthBytes / TARGET_PAGE_BYTES - page;
      const most = room * (hostPageBytes / TARGET_PAGE_BYTES);
      // A block that goes on in the next bank parts at a bitmap word, so that its bitmaps join.
      const pages = most >= left ? left : most - (most % BITMAP_WORD_PAGES);
      if (pages === 0) break;
      const bitmap = (): number => {
        const at = bitmapPtr;
        bitmapPtr += bitmapBytes(pages);
        return at;
      };
      segments.push({
        block,
        bank,
        ptr,
        firstPage: page,
        pages,
        dirtyPtr: bitmap(),
        owedPtr: bitmap(),
        receivedPtr: bitmap(),
        writtenPtr: bitmap(),
      });
      ramPtr = ptr + pages * TARGET_PAGE_BYTES;
      page += pages;
      if (page * TARGET_PAGE_BYTES < lengthBytes) break;
    }
    if (segments.length === 0) {
      const { name, hostPageBytes } = blocks[block]!;
      throw new PageEngineError(
        'BANK_TOO_SMALL',
        `a bank of ${options.maxBankBytes} bytes has no room for a host page of ${hostPageBytes}` +
          ` bytes beside ${packetsPtr + channelsBytes} bytes of bitmaps, buffers and cache`,
        { block: name },
      );
    }
    banks.push({
      wasmPages: Math.ceil(ramPtr / WASM_PAGE_BYTES),
      reservedPtr,
      sendPtrs: Array.from(
        { length: options.ioBuffers },
        (_, i) => buffersPtr + i * align(options.ioBufferBytes, TARGET_PAGE_BYTES),
      ),
      inputPtrs: Array.from(
        { length: RECEIVERS },
        (_, i) =>
          buffersPtr +
          options.ioBuffers * align(options.ioBufferBytes, TARGET_PAGE_BYTES) +
          i * align(inputBytes, TARGET_PAGE_BYTES),
      ),
      cachePtr,
      packetPtrs: Array.from({ length: multifdChannels }, (_, i) => packetsPtr + i * packetBytes),
      listPtrs: Array.from({ length: lists }, (_, i) => listsPtr + i * LIST_PAGES * 4),
      segments,
    });
  }
  return { options, slots, tablePtr, runsPtr, edgesPtr, inputBytes, banks };
}
