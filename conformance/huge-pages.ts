import { readFileSync, writeFileSync } from 'node:fs';

const POOL = '/proc/sys/vm/nr_hugepages';

/** Huge pages of 2 MiB that were added to the machine's pool; given back with `using`. */
export class HugePages implements Disposable {
  readonly #before: number;

  private constructor(before: number) {
    this.#before = before;
  }

  /** Adds pages to the pool. @returns why not, where the machine or its owner does not let us */
  static reserve(count: number): HugePages | { readonly missing: string } {
    try {
      const before = Number(readFileSync(POOL, 'utf8'));
      writeFileSync(POOL, `${before + count}`);
      const pages = new HugePages(before);
      const now = Number(readFileSync(POOL, 'utf8'));
      if (now >= before + count) return pages;
      pages[Symbol.dispose]();
      return { missing: `the kernel gave ${now - before} of ${count} huge pages` };
    } catch (error) {
      return { missing: `${POOL}: ${(error as Error).message}` };
    }
  }

  [Symbol.dispose](): void {
    writeFileSync(POOL, `${this.#before}`);
  }
}
