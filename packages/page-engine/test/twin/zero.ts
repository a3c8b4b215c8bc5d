import type { TwinBank } from './bank.ts';

/** The zero scan, a byte at a time. */
export function zeroTwin(bank: TwinBank) {
  const isZero = (ptr: number): boolean => {
    for (let at = ptr; at < ptr + 4096; at++) if (bank.bytes[at] !== 0) return false;
    return true;
  };
  const pagesOf = (ptr: number, pages: number): boolean[] =>
    Array.from({ length: pages }, (_, page) => isZero(ptr + page * 4096));
  return {
    isZero,
    countZeroPages: (ptr: number, pages: number): number =>
      pagesOf(ptr, pages).filter(Boolean).length,
    markZeroPages(ptr: number, pages: number, bitmap: number): number {
      const zero = pagesOf(ptr, pages);
      zero.forEach((is, page) => {
        if (is) bank.put(bitmap, page, true);
      });
      return zero.filter(Boolean).length;
    },
  };
}
