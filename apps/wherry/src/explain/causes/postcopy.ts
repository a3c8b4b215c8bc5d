import type { Cause } from '../cause.ts';

/** Commands, postcopy and the return path. */
export const POSTCOPY: readonly Cause[] = [
  {
    code: 'COMMAND_UNKNOWN',
    what: 'The destination does not know the command {command}',
    why: 'The source is a newer release (0xb, SWITCHOVER_START, comes with machine types from 10.0 on), or the section before was read to a wrong length.',
    action:
      'Use a machine type of the older release, or set -global migration.send-switchover-start=off at the source.',
    messages: [
      'MIG_CMD {command#} unknown (len {length#})',
      'MIG_CMD {command#} deprecated (len {length#})',
    ],
    errors: ['COMMAND_UNKNOWN'],
  },
  {
    code: 'COMMAND_LENGTH',
    what: 'A command[, {command},] has a length that does not belong to it: {length}[ and not {expected}]',
    why: 'The stream is damaged, or was read to a wrong length before.',
    action: 'Look at the place with `wherry inspect`.',
    messages: [
      '{command} received with bad length - expecting {expected#}, got {length#}',
      'CMD_POSTCOPY_ADVISE invalid length ({length#})',
      'invalid payload length ({length#})',
    ],
    errors: ['COMMAND_INVALID'],
  },
  {
    code: 'NO_RETURN_PATH',
    what: 'The source wants an answer[ (ping {ping})], and there is no way back',
    why: 'The stream is read from a file or a pipe, or the command that opens the return path is missing.',
    action:
      'Load a stream with postcopy or return-path over a socket; for files, switch these capabilities off at the source.',
    messages: [
      'CMD_PING ({ping#}) received with no return path',
      'CMD_OPEN_RETURN_PATH failed',
      'could not open return path',
    ],
  },
  {
    code: 'RETURN_PATH_TWICE',
    what: 'The return path is opened a second time: only a warning',
    why: 'The source repeated the command.',
    action: 'Nothing.',
    messages: ['CMD_OPEN_RETURN_PATH called when RP already open'],
  },
  {
    code: 'COLO',
    what: 'The stream asks for COLO, which the destination has not enabled',
    why: 'x-colo is on at the source only.',
    action: 'Set x-colo alike on both sides.',
    messages: [
      'ENABLE_COLO command come in migration stream, but x-colo capability is not set',
      'ENABLE_COLO command come in migration stream, but the replication module is not built in',
    ],
  },
  {
    code: 'POSTCOPY_ONE_SIDE',
    what: 'postcopy-ram is on at one side only',
    why: 'The source announces postcopy in another way than the destination expects.',
    action: 'Set postcopy-ram alike on both sides, at the destination before it listens.',
    messages: [
      'RAM postcopy is enabled but have 0 byte advise',
      'RAM postcopy is disabled but have 16 byte advise',
    ],
  },
  {
    code: 'POSTCOPY_PAGE_SIZES',
    what: 'The page sizes differ: {source} at the source, {destination} at the destination',
    why: 'Postcopy places whole host pages, so both sides need the same ones for each RAM block.',
    action: 'Give both sides the same huge pages; check that both hosts have the same page size.',
    messages: [
      'Postcopy needs matching RAM page sizes (s={source#} d={destination#})',
      'Postcopy needs matching target page sizes (s={source#} d={destination#})',
    ],
  },
  {
    code: 'POSTCOPY_RUN_WITHOUT_DISCARD',
    what: 'The source started postcopy without discarding any page, which QEMU’s destination refuses',
    why: 'Nothing was dirty when postcopy began: QEMU then leaves out the discards, and its own destination stays in the state before.',
    action:
      'Start the migration again; start postcopy while the guest writes, or complete by precopy.',
    messages: ['CMD_POSTCOPY_RUN in wrong postcopy state (2)'],
  },
  {
    code: 'POSTCOPY_STATE',
    what: 'The command {command} comes in a state where it has no place ({state})',
    why: 'Commands are missing or doubled, or the capabilities differ between the two sides.',
    action: 'Set postcopy-ram and dirty-bitmaps alike on both sides.',
    messages: ['CMD_POSTCOPY_{command} in wrong postcopy state ({state#})'],
    errors: ['COMMAND_UNEXPECTED'],
  },
  {
    code: 'POSTCOPY_DISCARD',
    what: 'A discard of pages cannot be done',
    why: 'It names a RAM block or a range that the destination does not have: sizes or page sizes differ.',
    action: 'Compare RAM and memory backends of both sides.',
    messages: [
      'CMD_POSTCOPY_RAM_DISCARD invalid {what} ({value#})',
      'CMD_POSTCOPY_RAM_DISCARD missing nil ({value#})',
      'CMD_POSTCOPY_RAM_DISCARD Failed to read RAMBlock ID',
      "ram_discard_range: Failed to find block '{block}'",
      "Overrun block '{block}' (",
      'Unaligned start address: {address}',
      'Unaligned length: {length#}',
      'Failed to discard RAM range {block}: {error#}',
    ],
  },
  {
    code: 'POSTCOPY_UNSUPPORTED',
    what: 'The destination cannot do postcopy: its kernel does not hand out userfaultfd, or the memory does not allow it',
    why: 'vm.unprivileged_userfaultfd is 0 and QEMU has no right of its own, a memory backend that userfaultfd cannot serve is in use, or memory is locked.',
    action:
      'Set sysctl vm.unprivileged_userfaultfd=1 or give QEMU /dev/userfaultfd; check the memory backends; switch mlock off.',
    messages: [
      'Postcopy is not supported',
      'Userfaultfd not available: {reason}',
      'Userfault on this host does not support huge pages',
      'Host backend files need to be TMPFS or HUGETLBFS only',
      'munlockall() failed: {reason}',
      'Userfault feature detection failed',
      'uffd_open() failed: {reason}',
      'UFFDIO_API failed: {reason}',
      'postcopy_ram_incoming_init: No OS support',
      'Target page size bigger than host page size',
      'Postcopy RAM incoming init failed',
    ],
  },
  {
    code: 'PACKAGE_CUT',
    what: 'The package of device states is cut, or its length damaged: {length} bytes',
    why: 'The connection was lost just when postcopy began.',
    action: 'The guest has not run at the destination yet: continue it at the source.',
    messages: [
      'CMD_PACKAGED: Buffer receive fail ret={error#} length={length#}',
      'Unreasonably large packaged state: {length#}',
    ],
  },
  {
    code: 'POSTCOPY_PLACE',
    what: 'A page could not be placed: it is there already, or does not belong to its host page',
    why: 'The page was sent twice after postcopy began, or pages of two host pages were mixed in one channel.',
    action:
      'This is a fault of the sender. The migration is paused: resume it, the missing pages are asked for again.',
    messages: [
      'Non-same host page detected on channel {channel#}',
      'postcopy_place_page',
      'loadvm failed during postcopy: {error#}',
    ],
    errors: ['PAGES_MISSING'],
  },
  {
    code: 'POSTCOPY_PAUSED',
    what: 'The connection was lost in postcopy; the migration waits to be resumed',
    why: 'Each side holds a part of the guest, so neither can go on alone.',
    action:
      'At the destination migrate-recover with a new address, then at the source migrate with resume=true. Do not stop either process.',
    messages: [
      'Detected IO failure for postcopy. Migration paused.',
      'Postcopy migration is paused by the user',
    ],
    errors: ['PAUSED'],
  },
  {
    code: 'RECOVER_STATE',
    what: 'There is no paused postcopy migration to recover or resume',
    why: 'migrate-recover or resume=true was given in another state, or to the wrong side.',
    action: 'Look at query-migrate on both sides: both must be postcopy-paused.',
    messages: [
      'Migrate recover can only be run when postcopy is paused',
      'Cannot resume if there is no paused migration',
      'illegal resume received',
      'migrate-pause is currently only supported during postcopy-active',
      'Postcopy recovery cannot work when release-ram capability is set',
    ],
  },
  {
    code: 'RECEIVED_BITMAP',
    what: 'The list of pages that have arrived does not fit the RAM block[ {block}]',
    why: 'The two sides of the recovery do not belong to one migration, or the connection was lost in it.',
    action: 'Connect the very two processes that were paused, and try once more.',
    messages: [
      "ramblock '{block}' bitmap size mismatch ({received#} != {local#})",
      "ramblock '{block}' end mark incorrect: {mark#}",
      "read bitmap failed for ramblock '{block}'",
      'Reload bitmap in incorrect state {block}',
      'MIG_RP_MSG_RECV_BITMAP missing block name',
      "MIG_RP_MSG_RECV_BITMAP has invalid block name '{block}'",
    ],
    errors: ['RECOVERY_INVALID'],
  },
  {
    code: 'PAGE_REQUEST',
    what: 'The destination asks for pages that the source cannot send',
    why: 'The request names a block or range that the source does not have: it is damaged, or the sizes of RAM differ.',
    action: 'Compare RAM and memory backends of both sides.',
    messages: [
      'MIG_RP_MSG_REQ_PAGES: Misaligned page request, start:{start#} len: {length#}',
      "MIG_RP_MSG_REQ_PAGES has no block '{block}'",
      'MIG_RP_MSG_REQ_PAGES request overrun, start={start#} len={length#} blocklen={block#}',
      'MIG_RP_MSG_REQ_PAGES has no previous block',
      'Req_Page_id with length {length#} expecting {expected#}',
    ],
    errors: ['PAGE_REQUEST_INVALID'],
  },
  {
    code: 'RETURN_PATH_INVALID',
    what: 'The source received something on the return path that it does not understand',
    why: 'The destination is a newer release with a message that the source lacks, or something other than a destination answers.',
    action: 'Check what answers on the port; compare the releases.',
    messages: [
      'Received invalid message {message#} length {length#}',
      "Received '{message}' message ({number#}) with[ ]incorrect length {length#} expecting {expected#}",
      'Failed reading data for message {message#} read {length#} expected {expected#}',
      'illegal resume_ack value {value#}',
    ],
    errors: ['RETURN_PATH_INVALID'],
  },
  {
    code: 'DESTINATION_FAILED',
    what: 'The destination reports that it failed',
    why: 'It could not load the stream; the reason is in its log, not here.',
    action:
      'Explain the destination’s log: `wherry explain - < LOG`. The guest goes on at the source.',
    messages: ['Sibling indicated error {error#}'],
    errors: ['DESTINATION_FAILED'],
  },
  {
    code: 'BITMAP_EXISTS',
    what: 'The destination already has a dirty bitmap named "{bitmap}"',
    why: 'It was created there, or came with the image, before the migration.',
    action:
      'Remove it at the destination (block-dirty-bitmap-remove), or map it to another name with block-bitmap-mapping.',
    messages: ["Bitmap with the same name ('{bitmap}') already exists on destination"],
  },
  {
    code: 'BITMAP_DROPPED',
    what: 'A dirty bitmap cannot be taken over; the guest is migrated without it',
    why: 'The destination has no such node, name or mapping, or another granularity; or the section was cut.',
    action:
      'Give the node at the destination the same node-name, or set block-bitmap-mapping. The next backup must be a full one.',
    messages: [
      "Migrated bitmap granularity doesn't match the destination bitmap '{bitmap}' granularity",
      "Error: Unknown bitmap alias '{bitmap}' on node '{node}'",
      "Error: unknown dirty bitmap '{bitmap}' for block device '{node}'",
      "Error: Unknown node alias '{node}'",
      'Error: unknown block device {node}',
    ],
  },
  {
    code: 'BITMAP_INVALID',
    what: 'A dirty-bitmap section cannot be read',
    why: 'The stream is damaged, or a newer release wrote it.',
    action: 'Switch dirty-bitmaps off and make a full backup after the migration.',
    messages: [
      'Unknown flags in migrated dirty bitmap header: {flags#}',
      'Bitmap migration stream buffer allocation request is too large',
      'Failed to read bitmap bits',
      'Unable to read bitmap alias string',
      'Error: block device name is not set',
    ],
  },
];
