/** One operand or opcode byte, an immediate, or a reference to a label that is resolved at the end. */
export type Operand =
  | number
  | { readonly kind: 'imm16' | 'imm32'; readonly value: number }
  | { readonly kind: 'rel8' | 'rel16' | 'rel32' | 'abs16' | 'abs32'; readonly label: string };

/** Encodes a 16-bit immediate, least significant byte first. */
export function imm16(value: number): Operand {
  return { kind: 'imm16', value };
}

/** Encodes a 32-bit immediate, least significant byte first. */
export function imm32(value: number): Operand {
  return { kind: 'imm32', value };
}

/** Encodes the signed distance in bytes from the end of the instruction to a label. */
export function rel8(label: string): Operand {
  return { kind: 'rel8', label };
}

/** Encodes the signed 16-bit distance in bytes from the end of the instruction to a label. */
export function rel16(label: string): Operand {
  return { kind: 'rel16', label };
}

/** Encodes the signed 32-bit distance in bytes from the end of the instruction to a label. */
export function rel32(label: string): Operand {
  return { kind: 'rel32', label };
}

/** Encodes the low 16 bits of a label's address. */
export function abs16(label: string): Operand {
  return { kind: 'abs16', label };
}

/** Encodes a label's 32-bit address. */
export function abs32(label: string): Operand {
  return { kind: 'abs32', label };
}

interface Reference {
  readonly kind: 'rel8' | 'rel16' | 'rel32' | 'abs16' | 'abs32';
  readonly label: string;
  readonly offset: number;
  readonly instruction: string;
}

/** Collects hand-encoded x86 instructions, each beside its mnemonic, and resolves their labels. */
export class Assembler {
  readonly #origin: number;
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #references: Reference[] = [];

  /** @param origin the address at which the first byte runs */
  constructor(origin: number) {
    this.#origin = origin;
  }

  /** Names the address of the next byte. */
  label(name: string): void {
    if (this.#labels.has(name)) throw new Error(`label ${name} is defined twice`);
    this.#labels.set(name, this.#origin + this.#bytes.length);
  }

  /** Appends one instruction; `text` is its mnemonic, kept for error messages. */
  op(text: string, ...operands: readonly Operand[]): void {
    for (const operand of operands) {
      if (typeof operand === 'number') {
        this.#bytes.push(operand & 0xff);
      } else if ('value' in operand) {
        this.#append(operand.value, operand.kind === 'imm16' ? 2 : 4);
      } else {
        const { kind, label } = operand;
        this.#references.push({ kind, label, offset: this.#bytes.length, instruction: text });
        this.#append(0, { rel8: 1, rel16: 2, abs16: 2, rel32: 4, abs32: 4 }[kind]);
      }
    }
  }

  /** Appends `mov al, value; out port, al`, for the ports below 0x100. */
  outByte(port: number, value: number): void {
    this.op(`mov al, ${value}`, 0xb0, value);
    this.op(`out ${port}, al`, 0xe6, port);
  }

  /** Appends bytes as they are. */
  data(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#bytes.push(byte & 0xff);
  }

  /** Fills with zeros until `offset` bytes from the origin. */
  padTo(offset: number): void {
    if (this.#bytes.length > offset) {
      throw new Error(`code is ${this.#bytes.length} bytes, its place ends at ${offset}`);
    }
    while (this.#bytes.length < offset) this.#bytes.push(0);
  }

  /** Resolves every label and returns the bytes. */
  assemble(): Uint8Array {
    const image = Uint8Array.from(this.#bytes);
    const view = new DataView(image.buffer);
    for (const { kind, label, offset, instruction } of this.#references) {
      const address = this.#labels.get(label);
      if (address === undefined) throw new Error(`no label ${label} (in "${instruction}")`);
      if (kind === 'abs32') view.setUint32(offset, address, true);
      else if (kind === 'abs16') view.setUint16(offset, address & 0xffff, true);
      else if (kind === 'rel16') {
        view.setInt16(offset, address - (this.#origin + offset + 2), true);
      } else if (kind === 'rel32') {
        view.setInt32(offset, address - (this.#origin + offset + 4), true);
      } else {
        const distance = address - (this.#origin + offset + 1);
        if (distance < -128 || distance > 127) {
          throw new Error(`${label} is ${distance} bytes away (in "${instruction}")`);
        }
        view.setInt8(offset, distance);
      }
    }
    return image;
  }

  #append(value: number, lengthBytes: number): void {
    for (let i = 0; i < lengthBytes; i++) this.#bytes.push((value >>> (8 * i)) & 0xff);
  }
}
