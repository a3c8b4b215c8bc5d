import { TransportError } from './transport-error.ts';

/** Bounds for an operation that may take long. */
export interface WaitOptions {
  /** Gives up when it aborts, with `ABORTED`. Has no effect once the operation has succeeded. */
  readonly signal?: AbortSignal | undefined;
  /** Gives up after this time, with `TIMEOUT`. Default: what the system allows. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Waits for what `start` reports, within bounds.
 *
 * @param what the operation in a few words, for messages
 * @param start starts it; returns how to give it up, which is not called once it has reported
 */
export function wait<T>(
  what: string,
  options: WaitOptions,
  start: (resolve: (value: T) => void, reject: (reason: Error) => void) => () => void,
): Promise<T> {
  const { signal, timeoutMs } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(aborted(what, signal));
      return;
    }
    const onAbort = (): void => giveUp(aborted(what, signal));
    let timer: NodeJS.Timeout | undefined;
    let isOver = false;
    let cancel: (() => void) | undefined;
    const settle = (): boolean => {
      if (isOver) return false;
      isOver = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      return true;
    };
    const giveUp = (reason: Error): void => {
      if (!settle()) return;
      cancel?.();
      reject(reason);
    };
    signal?.addEventListener('abort', onAbort);
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => giveUp(timedOut(what, timeoutMs)), timeoutMs);
    }
    cancel = start(
      (value) => settle() && resolve(value),
      (reason) => settle() && reject(reason),
    );
  });
}

function aborted(what: string, signal: AbortSignal | undefined): TransportError {
  return new TransportError('ABORTED', `${what} was given up`, { cause: signal?.reason });
}

function timedOut(what: string, timeoutMs: number): TransportError {
  return new TransportError('TIMEOUT', `${what} took longer than ${timeoutMs} ms`, {
    likely: 'Check that the other side runs, the address and the network',
  });
}
