import { ByteReader } from '@wherry/bytes';
import type { VmdescDevice, VmdescField, VmdescState } from './vmdesc.ts';
import { VmstateError } from './vmstate-error.ts';

/** A value decoded by a vmdesc alone, with the absolute byte range that it came from. */
export interface StateNode {
  readonly name: string;
  /** The vmdesc's type; `struct` and `subsection` have children, arrays have elements as children. */
  readonly type: string;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly value?: number | bigint | boolean | Uint8Array;
  readonly children?: readonly StateNode[];
}

const SUBSECTION = 0x05;

/** How each type of fixed meaning is read, by size where one name serves several. */
function readLeaf(type: string, bytes: Uint8Array): number | bigint | boolean | Uint8Array {
  const reader = ByteReader.over(bytes);
  switch (type) {
    case 'bool':
      return bytes.length === 1 ? reader.u8() !== 0 : bytes;
    case 'uint8':
    case 'uint8 equal':
    case 'uint16':
    case 'uint16 equal':
    case 'uint32':
    case 'uint32 equal':
    case 'uint64':
    case 'uint64 equal':
      return unsigned(reader, bytes);
    case 'int8':
    case 'int16':
    case 'int32':
    case 'int32 equal':
    case 'int32 le':
    case 'int64':
    case 'int64 equal': // what QEMU calls its check of an unsigned 64-bit value
    case 'timer':
      return signed(reader, bytes);
    default:
      return bytes;
  }
}

function unsigned(reader: ByteReader, bytes: Uint8Array): number | bigint | Uint8Array {
  if (bytes.length === 1) return reader.u8();
  if (bytes.length === 2) return reader.u16();
  if (bytes.length === 4) return reader.u32();
  return bytes.length === 8 ? reader.u64() : bytes;
}

function signed(reader: ByteReader, bytes: Uint8Array): number | bigint | Uint8Array {
  if (bytes.length === 1) return reader.i8();
  if (bytes.length === 2) return reader.i16();
  if (bytes.length === 4) return reader.i32();
  return bytes.length === 8 ? reader.i64() : bytes;
}

/**
 * Decodes the body of a device section by its entry in the stream's vmdesc.
 *
 * @param bytes the section's body, header and footer excluded; leaf values are views into it
 * @param offset absolute offset of the body, for the nodes and messages
 * @returns one node per field, subsections last
 * @throws VmstateError `VMDESC_MISMATCH` when sizes do not add up to the body, or a subsection is not where it should be
 */
export function decodeWithVmdesc(
  device: VmdescDevice,
  bytes: Uint8Array,
  offset = 0,
): readonly StateNode[] {
  const walker = new Walker(bytes, offset, `${device.name}`);
  const nodes =
    device.vmsd_name === undefined && device.size !== undefined
      ? [walker.leaf('data', 'buffer', device.size, [])]
      : walker.state(device as VmdescState, []);
  walker.expectEnd();
  return nodes;
}

class Walker {
  readonly #bytes: Uint8Array;
  readonly #offset: number;
  readonly #section: string;
  #at = 0;

  constructor(bytes: Uint8Array, offset: number, section: string) {
    this.#bytes = bytes;
    this.#offset = offset;
    this.#section = section;
  }

  state(state: VmdescState, path: readonly string[]): StateNode[] {
    const nodes: StateNode[] = [];
    for (const f of state.fields ?? []) {
      const { array_len: count } = f;
      if (count === undefined) {
        nodes.push(
          this.#element(f, f.index === undefined ? f.name : `${f.name}[${f.index}]`, path),
        );
        continue;
      }
      const start = this.#at;
      this.#checkRoom(count * f.size, [...path, f.name]);
      const children: StateNode[] = [];
      for (let i = 0; i < count; i++) children.push(this.#element(f, `${i}`, [...path, f.name]));
      nodes.push(this.#node(f.name, 'array', start, children));
    }
    for (const subsection of state.subsections ?? [])
      nodes.push(this.#subsection(subsection, path));
    return nodes;
  }

  #element(f: VmdescField, name: string, path: readonly string[]): StateNode {
    if (f.struct === undefined) return this.leaf(name, f.type, f.size, path);
    const start = this.#at;
    const children = this.state(f.struct, [...path, name]);
    return this.#node(name, 'struct', start, children);
  }

  leaf(name: string, type: string, size: number, path: readonly string[]): StateNode {
    this.#checkRoom(size, [...path, name]);
    const bytes = this.#bytes.subarray(this.#at, this.#at + size);
    const offset = this.#offset + this.#at;
    this.#at += size;
    return { name, type, offset, lengthBytes: size, value: readLeaf(type, bytes) };
  }

  #subsection(subsection: VmdescState, path: readonly string[]): StateNode {
    const start = this.#at;
    const { vmsd_name: name } = subsection;
    const where = [...path, name];
    this.#checkRoom(2 + name.length + 4, where);
    const reader = ByteReader.over(this.#bytes.subarray(start));
    const marker = reader.u8();
    const found = reader.copy(reader.u8());
    const text = String.fromCharCode(...found);
    if (marker !== SUBSECTION || text !== name) {
      throw this.#mismatch(
        `subsection ${name}`,
        marker === SUBSECTION ? `subsection ${text}` : `byte 0x${marker.toString(16)}`,
        start,
        where,
      );
    }
    this.#at += 2 + name.length + 4;
    const children = this.state(subsection, where);
    return this.#node(name, 'subsection', start, children);
  }

  #node(name: string, type: string, start: number, children: StateNode[]): StateNode {
    return { name, type, offset: this.#offset + start, lengthBytes: this.#at - start, children };
  }

  #checkRoom(size: number, path: readonly string[]): void {
    const left = this.#bytes.length - this.#at;
    if (size > left) throw this.#mismatch(`${size} bytes`, `${left} left`, this.#at, path);
  }

  expectEnd(): void {
    if (this.#at !== this.#bytes.length) {
      throw this.#mismatch(
        `${this.#at} bytes by the description`,
        `${this.#bytes.length} bytes before the footer`,
        this.#at,
        [],
      );
    }
  }

  #mismatch(expected: string, found: string, at: number, path: readonly string[]): VmstateError {
    return new VmstateError('VMDESC_MISMATCH', 'A section differs from its description', {
      expected,
      found,
      offset: this.#offset + at,
      path: [this.#section, ...path],
      likely:
        'QEMU before 10.0 describes arrays of pointers with holes wrongly; otherwise the section is damaged',
    });
  }
}
