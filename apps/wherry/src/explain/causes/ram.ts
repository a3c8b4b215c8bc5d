import type { Cause } from '../cause.ts';

/** RAM: the list of blocks, records of pages, compressed forms, mapped-ram files. */
export const RAM: readonly Cause[] = [
  {
    code: 'RAM_BLOCK_UNKNOWN',
    what: 'The destination has no RAM block "{block}"',
    why: 'The block belongs to a device or memory backend that the destination lacks, or that has another id there: memory-backend objects name their blocks.',
    action:
      'Give the destination the same memory backends with the same ids, and the same devices (ROMs and video memory are blocks too).',
    messages: [
      'Unknown ramblock "{block}", cannot accept migration',
      "Can't find block {block}",
      'multifd: unknown ram block {block}',
      "block '{block}' not found",
    ],
    errors: ['RAM_BLOCK_UNKNOWN'],
  },
  {
    code: 'RAM_SIZE',
    what: 'The RAM block "{block}" is {local} bytes long at the destination and {received} in the stream',
    why: 'Other -m, other vgamem, or firmware files of another size on the two hosts.',
    action:
      'Give both sides the same sizes; for pc.bios and option ROMs the same firmware package, or a padded file.',
    messages: [
      'Size mismatch: {block}: {local#} != {received#}',
      'Length mismatch: {block}: {received#} in != {local#}',
    ],
    errors: ['RAM_MISMATCH'],
  },
  {
    code: 'RAM_SIZE_TOO_LARGE',
    what: 'The RAM block "{block}" would need {received} bytes and can have {maximum} at most',
    why: 'A block that may grow (ACPI tables, firmware configuration) is larger at the source than the destination allows.',
    action:
      'Use a versioned machine type and the same devices; newer firmware tables need a newer machine type at the destination.',
    messages: ['Size too large: {block}: {received#} > {maximum#}'],
  },
  {
    code: 'RAM_HOST_PAGE_SIZE',
    what: 'The RAM block "{block}" lies in host pages of {local} bytes here, {received} at the source',
    why: 'Postcopy needs the same huge page size on both sides.',
    action: 'Give both memory backends the same huge pages.',
    messages: ['Mismatched RAM page size {block} (local) {local#} != {received#}'],
    errors: ['PAGE_SIZE_MISMATCH'],
  },
  {
    code: 'RAM_ADDRESS',
    what: 'The RAM block "{block}" lies at another guest address[: {local}, in the stream {received}]',
    why: 'With x-ignore-shared the memory map must be the same; it is not.',
    action: 'Compare machine type, -m with slots and maxmem, and the order of memory devices.',
    messages: [
      'Mismatched GPAs for block {block} {local#}!= {received#}',
      'Mismatched GPAs for block {block}',
    ],
  },
  {
    code: 'RAM_LIST_INVALID',
    what: 'The list of RAM blocks cannot be read',
    why: 'A capability that adds words to the list (postcopy-ram, x-ignore-shared, mapped-ram) is set on one side only, or the stream is damaged.',
    action: 'Set these capabilities alike on both sides.',
    errors: ['RAM_LIST_INVALID'],
  },
  {
    code: 'RAM_OFFSET',
    what: 'A page lies[ at {offset},] behind the end of its RAM block',
    why: 'The block is shorter at the destination, or was resized while the migration ran; or the stream is damaged.',
    action: 'Compare the sizes of RAM and ROMs on both sides. If they are equal, migrate again.',
    messages: [
      'Illegal RAM offset {offset#}',
      'page outside of ramblock {block} range',
      'offset too long {offset#}',
    ],
  },
  {
    code: 'RAM_RECORD_INVALID',
    what: 'A RAM record has flags that cannot be together or are not known[: {flags}]',
    why: 'The stream was cut (older releases read zeros behind its end: flags 0x0), the record before had another length than the destination believes, or a capability (0x100 compress, 0x200 multifd) is on at the source only.',
    action:
      'Flags 0x0: see the sender’s log, the stream ends there. 0x100: switch compress off, releases from 9.1 on do not have it. 0x200: set multifd alike on both sides.',
    messages: [
      'Unknown combination of migration flags: {flags#} (postcopy mode)',
      'Unknown combination of migration flags: {flags#}',
    ],
    errors: ['RAM_RECORD_INVALID'],
  },
  {
    code: 'RAM_ZERO_FILL',
    what: 'A zero page carries the byte {value}',
    why: 'Only 0 is allowed there: the record is damaged, or something other than QEMU wrote it.',
    action: 'Migrate again; find out what changed the stream on its way.',
    messages: ['Found a zero page with value {value#}'],
  },
  {
    code: 'RAM_NO_BLOCK',
    what: 'A page continues a RAM block, but none came before it',
    why: 'The beginning of this channel is missing, or the record before was read to a wrong length.',
    action: 'Compare the capabilities of both sides; migrate again.',
    messages: ['Ack, bad migration stream!'],
  },
  {
    code: 'RAM_BLOCK_IGNORED',
    what: 'A page of the RAM block "{block}" came, which is not migrated at the destination',
    why: 'x-ignore-shared is set there and the block is shared, or the block belongs to a device that keeps it out of migration.',
    action: 'Set x-ignore-shared and share= alike on both sides.',
    messages: ['block {block} should not be migrated !'],
  },
  {
    code: 'XBZRLE_INVALID',
    what: 'A page that was sent as a difference cannot be put together',
    why: 'The encoded bytes are damaged, or the page here is not the one that the difference was made from.',
    action: 'Migrate again; if it comes back, without xbzrle.',
    messages: [
      'Failed to load XBZRLE page - {reason}!',
      'Failed to decompress XBZRLE page at {offset#}',
    ],
    errors: ['XBZRLE_INVALID'],
  },
  {
    code: 'COMPRESSED_PAGE',
    what: 'A zlib page came that the destination did not expect or cannot expand',
    why: 'compress is on at the source only, or the bytes are damaged. Releases from 9.1 on do not have this capability.',
    action: 'Switch compress off at the source; multifd-compression takes its place.',
    messages: [
      'Received an unexpected compressed page',
      'Invalid compressed data length: {length#}',
      'decompress data failed',
    ],
  },
  {
    code: 'MAPPED_RAM_VERSION',
    what: 'The mapped-ram header has version {version}, the destination knows up to {supported}',
    why: 'A newer release wrote the file.',
    action: 'Load it with that release.',
    messages: [
      'Migration mapped-ram capability version not supported (expected <= {supported#}, got {version#})',
    ],
  },
  {
    code: 'MAPPED_RAM_READ',
    what: 'The pages of a mapped-ram file cannot be read[: {block}]',
    why: 'The file is cut, was copied without its holes, or begins at another offset than when it was written: its offsets are absolute.',
    action:
      'Read it at the same offset as it was written at, as a whole file, with `cp --sparse` or rsync --sparse when copied.',
    messages: [
      'Error reading ramblock {block} pages, region has bad alignment',
      '({block}) failed to read page {page#} from file offset {offset#}',
      'Could not read whole mapped-ram migration header',
      'Error reading dirty bitmap',
    ],
  },
  {
    code: 'MAPPED_RAM_FLAGS',
    what: 'RAM records with flags {flags} stand in a mapped-ram file, where pages have fixed places',
    why: 'mapped-ram is on at one side only.',
    action: 'Set mapped-ram alike for writing and reading.',
    messages: ['Unexpected RAM flags: {flags#}'],
  },
  {
    code: 'RAM_HOOK',
    what: 'The stream holds RDMA records, but this is no RDMA connection',
    why: 'The source migrates over rdma:, the destination listens on something else.',
    action: 'Use rdma: on both sides, or on neither.',
    messages: [
      'RDMA hooks are only valid with rdma',
      'failed to start RDMA registration',
      'failed to stop RDMA registration',
    ],
  },
];
