/** Time, handed in: the wall clock in a host, a virtual one in a simulation. */
export interface Clock {
  /** Milliseconds since any fixed moment, with fractions. */
  now(): number;
  /** Resolves after `ms` milliseconds; rejects with the signal's reason when it is aborted before. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Resolves after everything else that is ready, input above all, had its turn. */
  yield(): Promise<void>;
}
