/** A value of device state; bytes where the type has no narrower meaning, or holds what it never does. */
export type StateValue = number | bigint | boolean | Uint8Array;

/** A value or group of values decoded without the device, with the absolute byte range that it came from. */
export interface StateNode {
  readonly name: string;
  /**
   * The vmdesc's type. These have children: `array` (its elements, named by their index), `struct`,
   * `tmp`, `vstruct` and `subsection` (their fields), `qtailq` and `qlist` (their elements), `gtree`
   * (an `entry` for each node, of its key and its value). What nothing describes is a leaf of type
   * `undescribed` (pointers behind a NULL, before QEMU 10.0) or `opaque` (by a dump).
   */
  readonly type: string;
  readonly offset: number;
  /** From the first byte to behind the last, with the markers of a list and the head of a subsection. */
  readonly lengthBytes: number;
  readonly value?: StateValue;
  readonly children?: readonly StateNode[];
  /** The index in its array of an element that is a field of its own, because elements may differ. */
  readonly index?: number;
  /** The description that the children follow, where they follow one. */
  readonly description?: { readonly name: string; readonly version: number };
}

/** The byte before a subsection's name. */
export const SUBSECTION = 0x05;
/** The byte that stands for a NULL in an array of pointers. */
export const NULL_POINTER = 0x30;
/** The byte before the content of an element that the receiver allocates. */
export const VALID_POINTER = 0x31;

/** Whether elements of this type have a byte 1 before each and a byte 0 behind the last. */
export function isListType(type: string): boolean {
  return type === 'qtailq' || type === 'qlist' || type === 'gtree';
}
