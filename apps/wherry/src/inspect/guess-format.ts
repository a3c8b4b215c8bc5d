/** What an input is that is no migration stream. */
export interface FormatGuess {
  /** In words, as "an ELF program". */
  readonly format: string;
  /** Code of the catalogue of causes. */
  readonly cause: string;
}

const OTHER = 'BYTES_OF_ANOTHER_PROGRAM';

/** First bytes in hexadecimal, what they begin, and the cause. */
const MAGICS: readonly (readonly [magic: string, format: string, cause: string])[] = [
  ['4d564551', 'a stream whose 32-bit words are swapped', 'BYTE_ORDER'],
  ['45514d56', 'a stream whose 16-bit words are swapped', 'BYTE_ORDER'],
  ['11223344', 'a multifd channel', 'MULTIFD_CHANNEL'],
  ['51435052', 'the side channel of cpr-transfer', 'CPR_CHANNEL'],
  ['160301', 'a TLS handshake', 'TLS_HANDSHAKE'],
  ['160303', 'a TLS handshake', 'TLS_HANDSHAKE'],
  ['0001000400000000', 'the return path of a migration', 'RETURN_PATH_BYTES'],
  ['0001000400000001', 'the return path of a migration', 'RETURN_PATH_BYTES'],
  ['00020004', 'the return path of a migration', 'RETURN_PATH_BYTES'],
  ['00070000', 'the return path of a migration', 'RETURN_PATH_BYTES'],
  ['514649fb', 'a qcow2 image', OTHER],
  ['7f454c46', 'an ELF program or memory dump', OTHER],
  ['4b44554d50', 'a compressed memory dump (kdump)', OTHER],
  ['4d5a', 'a Windows program', OTHER],
  ['4c554b53babe', 'a LUKS image', OTHER],
  ['4b444d56', 'a VMDK image', OTHER],
  ['7668647866696c65', 'a VHDX image', OTHER],
  ['636f6e6563746978', 'a VHD image', OTHER],
  ['377abcaf271c', 'a 7z archive', OTHER],
  ['504b0304', 'a zip archive', OTHER],
  ['04224d18', 'lz4 data', OTHER],
  ['255044462d', 'a PDF document', OTHER],
  ['89504e47', 'a PNG picture', OTHER],
];

const TEXTS: readonly (readonly [beginning: RegExp, format: string])[] = [
  [/^(GET|POST|PUT|HEAD|OPTIONS|CONNECT|DELETE) \S+ HTTP\//, 'an HTTP request'],
  [/^PRI \* HTTP\/2/, 'an HTTP/2 request'],
  [/^HTTP\/\d/, 'an HTTP response'],
  [/^SSH-\d/, 'an SSH banner'],
  [/^RFB \d/, 'a VNC banner'],
  [/^\s*\{\s*"QMP"/, 'a QMP greeting'],
  [/^\s*\{\s*"vmschkmachine"/, 'a dump of -dump-vmstate: wherry check and --schema read it'],
  [/^\s*[{[]/, 'JSON text'],
  [/^\s*</, 'XML or HTML text'],
  [/^#!/, 'a script'],
  [/^[\t\n\r\x20-\x7e]{8,}/, 'text'],
];

/** Tells other formats by their first bytes. */
export function guessFormat(head: Uint8Array): FormatGuess | undefined {
  const hex = Buffer.from(head.subarray(0, 16)).toString('hex');
  for (const [magic, format, cause] of MAGICS) {
    if (hex.startsWith(magic)) return { format, cause };
  }
  if (isPageRecord(head)) {
    return { format: 'the preempt channel of a postcopy migration', cause: 'PREEMPT_CHANNEL' };
  }
  const text = Buffer.from(head.subarray(0, 256)).toString('latin1');
  const found = TEXTS.find(([beginning]) => beginning.test(text));
  if (found !== undefined) return { format: found[1], cause: OTHER };
  if (head[510] === 0x55 && head[511] === 0xaa) {
    return { format: 'a raw disk image', cause: OTHER };
  }
  return undefined;
}

/** Tells whether a RAM record begins here: a page's word, then its block's name. */
function isPageRecord(head: Uint8Array): boolean {
  if (head.length < 10) return false;
  const [high, flags, length] = [head[0]!, ((head[6]! & 0x03) << 8) | head[7]!, head[8]!];
  if (high !== 0 || (flags !== 0x08 && flags !== 0x02) || length === 0) return false;
  const name = head.subarray(9, 9 + length);
  return name.length === length && name.every((byte) => byte > 0x20 && byte < 0x7f);
}
