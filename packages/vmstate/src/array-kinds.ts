import type { ArrayOf, Kind } from './kind.ts';

/** Options of an array whose length an earlier field holds. */
export interface VarrayOptions {
  /** What the field's number is multiplied by; default 1. @see VMS_MULTIPLY_ELEMENTS in QEMU's include/migration/vmstate.h */
  readonly times?: number;
}

/** Makes an array of a fixed number of elements. @see VMSTATE_ARRAY in QEMU's include/migration/vmstate.h */
export function array<T>(element: Kind<T>, count: number): ArrayOf<T> {
  return { element, count };
}

/**
 * Makes an array whose length an earlier field of any integer kind holds; a negative one is refused.
 *
 * @see VMSTATE_VARRAY_UINT32 and VMSTATE_VARRAY_MULTIPLY in QEMU's include/migration/vmstate.h
 */
export function varray<T>(
  element: Kind<T>,
  countField: string,
  options: VarrayOptions = {},
): ArrayOf<T> {
  return { element, count: countField, ...options };
}

/** Makes rows of columns, row after row. @see VMSTATE_2DARRAY in QEMU's include/migration/vmstate.h */
export function array2d<T>(element: Kind<T>, rows: number, columns: number): ArrayOf<T, T[][]> {
  return {
    element,
    count: rows * columns,
    unpack: (value) => value.flat() as T[],
    pack: (elements) =>
      Array.from({ length: rows }, (_, row) => elements.slice(row * columns, (row + 1) * columns)),
  };
}

/**
 * Makes `count` elements from `start` on of a longer array, whose others stay as they are.
 *
 * @see VMSTATE_SUB_ARRAY and VMSTATE_STRUCT_SUB_ARRAY in QEMU's include/migration/vmstate.h
 */
export function subArray<T>(element: Kind<T>, start: number, count: number): ArrayOf<T> {
  return {
    element,
    count,
    unpack: (value) => value.slice(start, start + count),
    pack(elements, current = []) {
      const whole = [...current];
      for (const [i, value] of elements.entries()) whole[start + i] = value;
      return whole;
    },
  };
}

/**
 * Makes an array of pointers: a null one is the byte `0x30`, another its element alone. The wire does
 * not tell which are null, so that a load takes that from its base.
 *
 * @param count the number of pointers, or the name of the earlier field that holds it
 * @see VMSTATE_ARRAY_OF_POINTER_TO_STRUCT in QEMU's include/migration/vmstate.h
 */
export function pointerArray<T>(element: Kind<T>, count: number | string): ArrayOf<T | null> {
  return { element: element as Kind<T | null>, count, pointers: 'own' };
}

/**
 * Makes an array of pointers whose every element has a marker before it: `0x30` for null, `0x31` and
 * the element for another. A load makes the elements.
 *
 * @param count the number of pointers, or the name of the earlier field that holds it
 * @see VMS_ARRAY_OF_POINTER_AUTO_ALLOC in QEMU's include/migration/vmstate.h, from 11.1
 */
export function markedPointerArray<T>(element: Kind<T>, count: number | string): ArrayOf<T | null> {
  return { element: element as Kind<T | null>, count, pointers: 'marked' };
}
