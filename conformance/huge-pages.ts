import { readFileSync, writeFileSync } from 'node:fs';

const POOL = '/proc/sys/vm/nr_hugepages';

/** Huge pages of 2 MiB that were added to the machine's pool; given back with `using`. */
export class HugePages implements Disposable {
  readonly #count: number;

  private constructor(count: number) {
    this.#count = count;
  }

  /** Adds pages to the pool. @returns why not, where the machine or its owner does not let us */
  static reserve(count: number): HugePages | { readonly missing: string } {
    try {
      const before = poolSize();
      writeFileSync(POOL, `${before + count}`);
      const now = poolSize();
      if (now >= before + count) return new HugePages(count);
      writeFileSync(POOL, `${before}`);
      return { missing: `the kernel gave ${now - before} of ${count} huge pages` };
    } catch (error) {
      return { missing: `${POOL}: ${(error as Error).message}` };
    }
  }

  /** Takes away what was added: another run beside this one may have added its own. */
  [Symbol.dispose](): void {
    writeFileSync(POOL, `${poolSize() - this.#count}`);
  }
}

function poolSize(): number {
  return Number(readFileSync(POOL, 'utf8'));
}
