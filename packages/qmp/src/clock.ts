/** Is where time comes from; a test hands in its own. */
export interface QmpClock {
  /** Returns milliseconds since the Unix epoch; a fraction is used for microseconds. */
  nowMs(): number;
  /** Calls back once after a delay; returns what cancels it. */
  setTimer(delayMs: number, callback: () => void): () => void;
}

/** Is the machine's own clock. */
export const systemClock: QmpClock = {
  nowMs: () => Date.now(),
  setTimer: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
