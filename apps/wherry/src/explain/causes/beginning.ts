import type { Cause } from '../cause.ts';

/** The first bytes: not a stream, another program's bytes, another kind of connection. */
export const BEGINNING: readonly Cause[] = [
  {
    code: 'NOT_A_STREAM',
    what: 'The input does not begin with the magic of a migration stream, 0x5145564d ("QEVM")',
    why: 'Something other than a source connected to the migration port, or the file is not a saved stream, or its beginning is missing.',
    action:
      'Check what connects to the port (a health check, a port scan, a second source), or which file is read. `wherry inspect FILE` names many other formats by their first bytes.',
    messages: [
      'Not a migration stream, magic: {magic#} != {expected#}',
      'Not a migration stream',
      'unknown channel magic: {magic#}',
    ],
    errors: ['NOT_A_STREAM'],
  },
  {
    code: 'EMPTY_INPUT',
    what: 'The input holds no byte at all',
    why: 'The sender failed before its first write, or the connection was closed by something that only tried whether the port is open.',
    action: 'Look at the sender’s own log; for a file, at the free space where it was written.',
  },
  {
    code: 'BYTES_OF_ANOTHER_PROGRAM',
    what: 'The input is not a migration stream[ but {format}]',
    why: 'Another file was named, or another program connected to the migration port.',
    action:
      'Name the file with the stream, or find out what connects to the port. A snapshot inside a qcow2 image is loaded with -loadvm or shown by qemu-img snapshot -l; it is no file of its own.',
  },
  {
    code: 'TLS_HANDSHAKE',
    what: 'The input is a TLS handshake, not a migration stream',
    why: 'The source has tls-creds set and the destination has not, so the destination reads the handshake as a stream.',
    action: 'Set the migration parameter tls-creds on both sides, or on neither.',
    messages: [
      'unknown channel magic: 369295616',
      'unknown channel magic: 369295617',
      'unknown channel magic: 369295618',
    ],
  },
  {
    code: 'MULTIFD_CHANNEL',
    what: 'The input is a multifd channel (magic 0x11223344), not the main stream',
    why: 'A multifd channel connected where the main stream was expected: the destination has no multifd capability, or is a release that takes the first connection as the main one (before 8.0).',
    action:
      'Set multifd and multifd-channels alike on both sides before the migration. A recorded channel cannot be read alone: record the main connection.',
    messages: ['unknown channel magic: 287454020'],
  },
  {
    code: 'RETURN_PATH_BYTES',
    what: 'The input is the return path: what a destination writes back to its source',
    why: 'The other direction of the connection was recorded.',
    action: 'Record what the source sends.',
  },
  {
    code: 'RECOVERY_STREAM',
    what: 'The input is the connection of a postcopy recovery, which has no header',
    why: 'A paused postcopy migration was resumed over this connection: it begins with commands, and belongs to a stream that began elsewhere.',
    action:
      'Read the recording of the first connection; a recovery holds only the pages that were missing.',
  },
  {
    code: 'PREEMPT_CHANNEL',
    what: 'The input is the preempt channel of a postcopy migration: bare RAM records',
    why: 'The second connection of postcopy-preempt was recorded, or it reached a destination that expected another one.',
    action: 'Set postcopy-preempt alike on both sides; record the main connection.',
  },
  {
    code: 'CPR_CHANNEL',
    what: 'The input is the side channel of cpr-transfer (magic "QCPR"), not the main stream',
    why: 'With mode=cpr-transfer the descriptors of RAM go over a socket of their own.',
    action: 'Give both channels, `main` and `cpr`, in the same roles on both sides.',
  },
  {
    code: 'BYTE_ORDER',
    what: 'The input begins with the magic of a migration stream with its bytes swapped',
    why: 'A program that copied the stream treated it as 32-bit or 16-bit words.',
    action: 'Copy the stream byte by byte; find the filter between sender and file.',
  },
  {
    code: 'STREAM_BEGINS_LATER',
    what: 'The stream does not begin at the first byte of the input[, but at {offset}]',
    why: 'It was written with an offset (`file:PATH,offset=N`), or something else stands before it.',
    action:
      'Give the destination the same offset. `wherry inspect` finds the stream behind what is before it.',
  },
  {
    code: 'LIBVIRT_IMAGE',
    what: 'The libvirt save image or the packed data around the stream cannot be read',
    why: 'The file is cut or damaged, a newer libvirt wrote it, or the program that unpacks it is missing.',
    action:
      'Compare the size with the original; try `virsh save-image-dumpxml FILE`, or unpack the file by hand.',
    errors: ['CONTAINER_INVALID', 'CONTAINER_PACKED'],
  },
  {
    code: 'STREAM_V2',
    what: 'The stream has version 2 of the format, which no release since 2009 writes or reads',
    why: 'A QEMU before 0.10 wrote it.',
    action:
      'Load it with a release of that time, and save it again step by step through newer ones.',
    messages: [
      "SaveVM v2 format is obsolete and don't work anymore",
      'SaveVM v2 format is obsolete and no longer supported',
    ],
  },
  {
    code: 'STREAM_VERSION',
    what: 'The stream has a version of the format that does not exist[: {version}]',
    why: 'All releases write version 3; the beginning of the stream is damaged.',
    action: 'Save the stream again; find out what changed it on its way.',
    messages: [
      'Unsupported migration stream version, file version {version#} != {expected#}',
      'Unsupported migration stream version',
    ],
    errors: ['VERSION_UNSUPPORTED'],
  },
];
