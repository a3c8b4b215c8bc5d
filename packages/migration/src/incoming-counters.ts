import type { RamReceiver } from '@wherry/page-engine';

/** Pages that a destination has received, and requests that it has sent. */
export interface IncomingCounters {
  readonly normalPages: number;
  readonly zeroPages: number;
  readonly xbzrlePages: number;
  /** Host pages that became present in postcopy. */
  readonly placedHostPages: number;
  /** Those of them that came over the channel for requested pages. */
  readonly preemptHostPages: number;
  readonly requests: number;
}

/** Sums up the channels of a destination. */
export function sumCounters(
  main: RamReceiver['counters'],
  [preempt, multifd]: readonly [
    RamReceiver['counters'] | undefined,
    Pick<IncomingCounters, 'normalPages' | 'zeroPages'> | undefined,
  ],
  requests: number,
  mappedPages: number,
): IncomingCounters {
  const preemptHostPages = preempt?.placedHostPages ?? 0;
  return {
    normalPages:
      main.normalPages + (preempt?.normalPages ?? 0) + (multifd?.normalPages ?? 0) + mappedPages,
    zeroPages: main.zeroPages + (preempt?.zeroPages ?? 0) + (multifd?.zeroPages ?? 0),
    xbzrlePages: main.xbzrlePages,
    placedHostPages: main.placedHostPages + preemptHostPages,
    preemptHostPages,
    requests,
  };
}
