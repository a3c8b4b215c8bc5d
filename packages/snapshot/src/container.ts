import { type ByteReader, collect, need, type Parser } from '@wherry/bytes';
import { StreamError } from '@wherry/stream';
import type { Locator } from './locator.ts';
import type { ContainerModel } from './stream-model.ts';

const MAGIC = 'LibvirtQemudSave';
/** What the magic is until libvirt has written everything. */
const PARTIAL_MAGIC = 'LibvirtQemudPart';
const HEADER_BYTES = 92;
const MAX_DATA_BYTES = 64 * 1024 * 1024;
const MAX_VERSION = 2;
/** By their number in the header, since libvirt's version 2 of it. */
const COMPRESSIONS = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'sparse'] as const;

const decoder = new TextDecoder();

/**
 * Reads the header of a libvirt save image up to the stream in it.
 *
 * The stream that follows is plain for the compressions `raw` and `sparse` (that is mapped-ram);
 * otherwise what follows must be unpacked first.
 *
 * @returns undefined, with nothing read, when the input begins otherwise
 * @throws StreamError `CONTAINER_INVALID`
 * @see qemuSaveImageReadHeader in libvirt's src/qemu/qemu_saveimage.c
 */
export function* readContainer(
  reader: ByteReader,
  locator?: Locator,
): Parser<ContainerModel | undefined> {
  while (reader.available < MAGIC.length) {
    if (reader.ended || !startsLike(reader)) return undefined;
    yield reader.available + 1;
  }
  if (!startsLike(reader)) return undefined;
  yield* need(reader, HEADER_BYTES);
  const { offset } = reader;
  const header = reader.copy(HEADER_BYTES);
  const isPartial = decoder.decode(header.subarray(0, MAGIC.length)) === PARTIAL_MAGIC;
  const view = new DataView(header.buffer);
  // The words are in the writer's own order: a version that is too large means the other one.
  const isLittle = view.getUint32(16, true) <= MAX_VERSION;
  const [version, dataBytes, wasRunning, format, cookieOffset] = [16, 20, 24, 28, 32].map((at) =>
    view.getUint32(at, isLittle),
  ) as [number, number, number, number, number];
  if (version === 0 || version > MAX_VERSION) {
    throw invalid(`version 1 or ${MAX_VERSION}`, `${version}`, offset + 16);
  }
  if (dataBytes === 0 || dataBytes > MAX_DATA_BYTES) {
    throw invalid(`1 to ${MAX_DATA_BYTES} bytes of XML`, `${dataBytes}`, offset + 20);
  }
  if (cookieOffset > dataBytes) {
    throw invalid(`a cookie within ${dataBytes} bytes`, `one at ${cookieOffset}`, offset + 32);
  }
  const data = yield* collect(reader, dataBytes);
  const isTagged = version >= 2;
  const xmlBytes = isTagged && cookieOffset > 0 ? cookieOffset : dataBytes;
  const cookie = textIn(data.subarray(xmlBytes));
  const container: ContainerModel = {
    format: 'libvirt-save',
    version,
    compression: isTagged ? (COMPRESSIONS[format] ?? `${format}`) : 'raw',
    wasRunning: wasRunning !== 0,
    isPartial,
    byteOrder: isLittle ? 'little' : 'big',
    xml: textIn(data.subarray(0, xmlBytes)),
    ...(cookie === '' ? {} : { cookie }),
    streamOffset: reader.offset,
  };
  locator?.pieces(
    offset,
    ['libvirt save image'],
    [
      [16, 'Magic of a libvirt save image', isPartial ? PARTIAL_MAGIC : MAGIC],
      [4, 'Version of the libvirt header', version],
      [4, 'Bytes of XML, cookie and padding', dataBytes],
      [4, 'Whether the guest was running', wasRunning],
      [4, `Compression of the stream: ${container.compression}`, format],
      [4, 'Offset of the cookie behind the header', cookieOffset],
      [HEADER_BYTES - 36, 'Unused bytes of the libvirt header'],
      [xmlBytes, 'The domain’s XML and the padding behind it'],
      [dataBytes - xmlBytes, 'libvirt’s cookie and the padding behind it'],
    ],
  );
  return container;
}

/** Tells whether the bytes at hand are those of a magic so far. */
function startsLike(reader: ByteReader): boolean {
  const count = Math.min(MAGIC.length, reader.available);
  const found = decoder.decode(reader.storage.slice(reader.start, reader.start + count));
  return MAGIC.startsWith(found) || PARTIAL_MAGIC.startsWith(found);
}

/** Text up to the first nil. */
function textIn(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function invalid(expected: string, found: string, offset: number): StreamError {
  return new StreamError(
    'CONTAINER_INVALID',
    'The header of the libvirt save image is not usable',
    {
      expected,
      found,
      offset,
      path: ['libvirt save image'],
      likely: 'The file is damaged, or a newer libvirt wrote it',
    },
  );
}
