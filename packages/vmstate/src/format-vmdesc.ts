import type { Vmdesc, VmdescState } from './vmdesc.ts';

/** Releases of QEMU that write a vmdesc in different ways; one in between writes as the one before it. */
export const VMDESC_STYLES = ['5.2', '7.2', '10.0', '11.1'] as const;

/** The release whose way of writing a vmdesc is followed. */
export type VmdescStyle = (typeof VMDESC_STYLES)[number];

/** What is written where nobody asks for another release. */
export const DEFAULT_STYLE: VmdescStyle = '10.0';

/**
 * Writes a vmdesc as one release of QEMU does: its spacing, the members of several elements repeated in
 * one object, and the configuration section described or not.
 *
 * @param style also to be given to what saves the devices, which decides how arrays are described
 * @see json_writer_str in QEMU's qobject/json-writer.c; up to 5.2 migration/qjson.c
 */
export function formatVmdesc(vmdesc: Vmdesc, style: VmdescStyle = DEFAULT_STYLE): string {
  const { configuration, ...rest } = vmdesc;
  const hasConfiguration = configuration !== undefined && (style === '10.0' || style === '11.1');
  const whole = hasConfiguration ? { configuration, ...rest } : rest;
  return new JsonText(style === '5.2').value(whole);
}

class JsonText {
  readonly #colon: string;
  readonly #open: string;
  readonly #close: string;

  constructor(isSpaced: boolean) {
    this.#colon = isSpaced ? ' : ' : ': ';
    this.#open = isSpaced ? ' ' : '';
    this.#close = isSpaced ? ' ' : '';
  }

  value(value: unknown): string {
    if (typeof value === 'string') return quote(value);
    if (Array.isArray(value))
      return this.#enclose(
        '[',
        ']',
        value.map((each) => this.value(each)),
      );
    if (typeof value === 'object' && value !== null) {
      return this.#enclose('{', '}', [...this.#members(value)]);
    }
    return String(value);
  }

  *#members(object: object): Generator<string> {
    const { elements, ...members } = object as { elements?: readonly VmdescState[] };
    for (const [key, value] of Object.entries(members)) {
      // The size of a field comes behind what is inside it.
      if (key === 'size') for (const element of elements ?? []) yield* this.#members(element);
      if (value !== undefined) yield `${quote(key)}${this.#colon}${this.value(value)}`;
    }
  }

  #enclose(open: string, close: string, parts: readonly string[]): string {
    return `${open}${this.#open}${parts.join(', ')}${this.#close}${close}`;
  }
}

/** Quotes a text in ASCII, as QEMU does. */
function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`,
  );
}
