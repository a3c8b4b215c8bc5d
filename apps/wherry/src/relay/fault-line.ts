import type { ChannelName, Fault } from './fault.ts';

/** A fault that happened. */
export interface InjectedFault {
  readonly fault: Fault;
  readonly channel: string;
  /** Offset in what the channel carried in that direction. */
  readonly offset: number;
}

/** The faults of a relay; each happens once. */
export class FaultPlan {
  readonly #waiting: Set<Fault>;
  readonly injected: InjectedFault[] = [];

  constructor(faults: readonly Fault[]) {
    this.#waiting = new Set(faults);
  }

  /** Those that have not happened. */
  get waiting(): readonly Fault[] {
    return [...this.#waiting];
  }

  /** Takes those that belong to one direction of a connection. */
  line(channel: ChannelName | undefined, name: string): FaultLine {
    return new FaultLine(this, channel, name);
  }

  /** Whether a fault is still to happen. */
  has(fault: Fault): boolean {
    return this.#waiting.has(fault);
  }

  /** Takes note that a fault happened. */
  note(fault: Fault, channel: string, offset: number): void {
    this.#waiting.delete(fault);
    this.injected.push({ fault, channel, offset });
  }
}

/** What is left of a chunk when faults have struck it. */
export interface Struck {
  readonly bytes: Uint8Array;
  /** Whether the connection ends behind these bytes. */
  readonly isCut: boolean;
}

/** The faults that may strike one direction of one connection. */
export class FaultLine {
  readonly #plan: FaultPlan;
  readonly #name: string;
  readonly #faults: readonly Fault[];
  /** Where each is to strike, once that is known. */
  readonly #places = new Map<Fault, number>();

  /** @param name the connection's, for the report */
  constructor(plan: FaultPlan, channel: ChannelName | undefined, name: string) {
    this.#plan = plan;
    this.#name = name;
    this.#faults = plan.waiting.filter((fault) => fault.channel === channel);
    for (const fault of this.#faults) {
      if (fault.place === undefined) this.#places.set(fault, fault.bytes);
    }
  }

  /** Takes note that a named place was passed at `offset`. */
  pass(place: string, offset: number): void {
    for (const fault of this.#faults) {
      if (fault.place !== place || this.#places.has(fault)) continue;
      this.#places.set(fault, offset + fault.bytes);
    }
  }

  /** Applies what is due to a chunk that begins at `start`; a chunk that is changed is copied first. */
  strike(chunk: Uint8Array, start: number): Struck {
    if (this.#places.size === 0) return { bytes: chunk, isCut: false };
    let bytes = chunk;
    let isCut = false;
    for (const [fault, at] of this.#places) {
      if (!this.#plan.has(fault)) continue;
      // Bytes from before the place was known have gone: the next one that goes is struck instead.
      const index = Math.max(0, at - start);
      if (fault.kind === 'cut' ? index > bytes.length : index >= bytes.length) continue;
      if (fault.kind === 'cut') {
        bytes = bytes.subarray(0, index);
        isCut = true;
      } else {
        if (bytes.buffer === chunk.buffer) bytes = bytes.slice();
        bytes[index]! ^= fault.mask;
      }
      this.#plan.note(fault, this.#name, start + index);
    }
    return { bytes, isCut };
  }
}
