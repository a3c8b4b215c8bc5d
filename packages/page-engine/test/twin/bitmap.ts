import type { TwinBank } from './bank.ts';

/** Bitmaps, a bit at a time. */
export function bitmapTwin(bank: TwinBank) {
  const setTo = (isSet: boolean) => (bitmap: number, from: number, to: number) => {
    for (let page = from; page < to; page++) bank.put(bitmap, page, isSet);
  };
  const next = (isSet: boolean) => (bitmap: number, from: number, to: number) => {
    for (let page = from; page < to; page++) if (bank.has(bitmap, page) === isSet) return page;
    return to;
  };
  const setRange = setTo(true);
  const [nextSet, nextClear] = [next(true), next(false)];
  const countSet = (bitmap: number, from: number, to: number): number => {
    let count = 0;
    for (let page = from; page < to; page++) if (bank.has(bitmap, page)) count++;
    return count;
  };
  const addRange = (into: number, from: number, first: number, end: number): void => {
    for (let page = first; page < end; page++) if (bank.has(from, page)) bank.put(into, page, true);
  };
  return {
    clearRange(bitmap: number, from: number, to: number): number {
      const count = countSet(bitmap, from, to);
      setTo(false)(bitmap, from, to);
      return count;
    },
    ...{ setRange, nextSet, nextClear, countSet, addRange },
    addNew(into: number, from: number, pages: number): number {
      const before = countSet(into, 0, pages);
      addRange(into, from, 0, pages);
      return countSet(into, 0, pages) - before;
    },
    findRuns(bitmap: number, from: number, to: number, out: number, most: number): number {
      let runs = 0;
      for (let page = nextSet(bitmap, from, to); page < to && runs < most; runs++) {
        const end = nextClear(bitmap, page, to);
        bank.setU32(out + 8 * runs, page);
        bank.setU32(out + 8 * runs + 4, end);
        page = nextSet(bitmap, end, to);
      }
      return runs;
    },
    widen(bitmap: number, pages: number, perHost: number): void {
      for (let first = 0; first < pages; first += perHost) {
        const end = Math.min(first + perHost, pages);
        if (countSet(bitmap, first, end) > 0) setRange(bitmap, first, end);
      }
    },
  };
}
