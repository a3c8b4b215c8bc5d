import { ByteReader } from '@wherry/bytes';
import type { StateNode, StateValue } from '@wherry/vmstate';
import type { DeviceModel } from './stream-model.ts';

const SKEYS_PAGES = 0x02;
const SKEYS_EOS = 0x01;
const BOOTP_CLIENTS = 16;

/**
 * Decodes a section of one of the devices that QEMU never described, which a vmdesc shows as one buffer.
 *
 * @returns undefined where the device or its layout is not known
 */
export function decodeOldStyle(
  device: DeviceModel,
  body: Uint8Array,
): readonly StateNode[] | undefined {
  const cursor = new FieldCursor(body, device.bodyOffset);
  switch (device.idstr) {
    case 's390-skeys':
      return decodeStorageKeys(cursor);
    case 'slirp':
      return decodeSlirp(cursor);
    case 'todclock':
      return decodeTod(cursor);
    default:
      return undefined;
  }
}

/** @see s390_storage_keys_save in QEMU's hw/s390x/s390-skeys.c */
function decodeStorageKeys(cursor: FieldCursor): readonly StateNode[] | undefined {
  const nodes: StateNode[] = [];
  while (cursor.left >= 8) {
    const word = cursor.word('address and flags');
    nodes.push(word);
    const flags = Number((word.value as bigint) & 0xfffn);
    if (flags === SKEYS_EOS) return cursor.left === 0 ? nodes : undefined;
    if (flags !== SKEYS_PAGES || cursor.left < 8) return undefined;
    const count = cursor.word('pages');
    const pages = Number(count.value);
    if (pages > cursor.left) return undefined;
    nodes.push(count, cursor.bytes('keys', pages));
  }
  return undefined;
}

/** Without forwarded sockets, whose state is libslirp's own. @see slirp_state_save in libslirp's src/state.c */
function decodeSlirp(cursor: FieldCursor): readonly StateNode[] | undefined {
  if (cursor.left !== 1 + 2 + BOOTP_CLIENTS * 8) return undefined;
  const end = cursor.number('end of the sockets', 1);
  if (end.value !== 0) return undefined;
  const id = cursor.number('ip_id', 2);
  const { offset } = cursor;
  const children: StateNode[] = [];
  for (let i = 0; i < BOOTP_CLIENTS; i++) {
    const at = cursor.offset;
    const fields = [cursor.number('allocated', 2), cursor.bytes('macaddr', 6)];
    children.push({ name: `${i}`, type: 'struct', offset: at, lengthBytes: 8, children: fields });
  }
  const lengthBytes = BOOTP_CLIENTS * 8;
  return [end, id, { name: 'bootp_clients', type: 'array', offset, lengthBytes, children }];
}

/** @see s390_tod_save in QEMU's hw/s390x/tod.c */
function decodeTod(cursor: FieldCursor): readonly StateNode[] | undefined {
  const isPresent = cursor.left === 10;
  if (!isPresent && cursor.left !== 1) return undefined;
  const present = cursor.number('present', 1);
  if (present.value !== Number(isPresent)) return undefined;
  if (!isPresent) return [present];
  return [present, cursor.number('high', 1), cursor.word('low')];
}

/** Takes values one behind the other as nodes. */
class FieldCursor {
  readonly #reader: ByteReader;

  constructor(bytes: Uint8Array, offset: number) {
    this.#reader = ByteReader.over(bytes, offset);
  }

  get left(): number {
    return this.#reader.available;
  }

  get offset(): number {
    return this.#reader.offset;
  }

  number(name: string, lengthBytes: 1 | 2): StateNode {
    const { offset } = this;
    const value = lengthBytes === 1 ? this.#reader.u8() : this.#reader.u16();
    return leaf(name, `uint${lengthBytes * 8}`, offset, lengthBytes, value);
  }

  word(name: string): StateNode {
    const { offset } = this;
    return leaf(name, 'uint64', offset, 8, this.#reader.u64());
  }

  bytes(name: string, lengthBytes: number): StateNode {
    const { offset } = this;
    return leaf(name, 'buffer', offset, lengthBytes, this.#reader.view(lengthBytes));
  }
}

function leaf(
  name: string,
  type: string,
  offset: number,
  lengthBytes: number,
  value: StateValue,
): StateNode {
  return { name, type, offset, lengthBytes, value };
}
