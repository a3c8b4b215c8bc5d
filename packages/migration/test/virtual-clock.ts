import type { Clock } from '../src/index.ts';

interface Timer {
  readonly at: number;
  readonly order: number;
  run(): void;
}

/** Time that passes only when nothing else can happen. */
export class VirtualClock implements Clock {
  #now = 0;
  #order = 0;
  #timers: Timer[] = [];

  now(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const timer = { at: this.#now + ms, order: this.#order++, run: resolve };
      this.#timers.push(timer);
      signal?.addEventListener('abort', () => {
        this.#timers = this.#timers.filter((t) => t !== timer);
        reject(signal.reason);
      });
    });
  }

  yield(): Promise<void> {
    return this.sleep(0);
  }

  /** Lets time pass until `done` is settled. Throws when nothing is left that could settle it, or it takes too long. */
  async runUntil(done: Promise<unknown>, limitMs = 600_000): Promise<void> {
    let isDone = false;
    const finish = (): void => {
      isDone = true;
    };
    done.then(finish, finish);
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve)); // everything that is ready has its turn
      if (isDone) return;
      const next = this.#timers.reduce<Timer | undefined>(
        (a, b) => (a === undefined || b.at < a.at || (b.at === a.at && b.order < a.order) ? b : a),
        undefined,
      );
      if (next === undefined) throw new Error('the simulation hangs: nothing is left to happen');
      if (next.at > limitMs)
        throw new Error(`the simulation takes more than ${limitMs} virtual ms`);
      this.#timers = this.#timers.filter((t) => t !== next);
      this.#now = Math.max(this.#now, next.at);
      next.run();
    }
  }
}
