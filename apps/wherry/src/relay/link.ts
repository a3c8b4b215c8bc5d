import { WherryError } from '@wherry/bytes';
import type { Transport } from '@wherry/migration';
import type { Command, ReturnPathMessage } from '@wherry/stream';
import type { ChannelName } from './fault.ts';
import type { FaultLine, FaultPlan } from './fault-line.ts';
import { Follower } from './follower.ts';
import { Outlet, type Pace } from './outlet.ts';
import type { Recording } from './recording.ts';
import { ReturnChannel } from './return-channel.ts';
import { type ChannelKind, type Phase, SourceChannel } from './source-channel.ts';

const FORWARD_BYTES = 256 * 1024;
const BACKWARD_BYTES = 32 * 1024;

/** Hears of what passes over a link. */
export interface LinkListener {
  /** The source's first bytes show what the link is. */
  onKnown(link: Link): void;
  onPhase(link: Link, phase: Phase, offset: number): void;
  onSection(link: Link, kind: 'start' | 'part' | 'end' | 'full', idstr: string): void;
  onMessage(link: Link, message: ReturnPathMessage): void;
  /** A fault cuts the connections. */
  onCut(link: Link): void;
}

/** What links have in common. */
export interface LinkContext {
  readonly listener: LinkListener;
  readonly faults: FaultPlan;
  readonly recording: Recording | undefined;
  readonly pace: { readonly forward: Pace | undefined; readonly backward: Pace | undefined };
  readonly delayMs: number | undefined;
  /** Whether a migration has its main connection. */
  hasMain(): boolean;
  /** Finds the name of a link whose kind is known now. */
  nameOf(link: Link): string;
}

/** How a link ended. */
export type LinkEnd = 'closed' | 'cut' | 'dropped' | WherryError;

/** One connection from the source, and the one to the destination that it is joined to. */
export class Link {
  readonly startMs = performance.now();
  readonly #near: Transport;
  readonly #context: LinkContext;
  readonly #storage = new Uint8Array(FORWARD_BYTES);
  readonly #abort = new AbortController();
  readonly #source: SourceChannel;
  readonly #forward: Follower;
  readonly #return: ReturnChannel;
  readonly #backward: Follower;
  #forwardFaults: FaultLine | undefined;
  #backwardFaults: FaultLine | undefined;
  #far: Transport | undefined;
  #name: string | undefined;
  #hasEnded = false;
  #end: LinkEnd | undefined;
  #endMs: number | undefined;
  #forwardBytes = 0;
  #backwardBytes = 0;

  /** @param near the source's side; belongs to the link */
  constructor(near: Transport, context: LinkContext) {
    this.#near = near;
    this.#context = context;
    const { listener } = context;
    this.#source = new SourceChannel(
      {
        onPhase: (phase, offset) => {
          this.#forwardFaults?.pass(phase, offset);
          listener.onPhase(this, phase, offset);
        },
        onSection: (kind, idstr, offset) => {
          this.#forwardFaults?.pass(idstr, offset);
          listener.onSection(this, kind, idstr);
        },
        onCommand: ({ name }: Command, offset) => this.#forwardFaults?.pass(name, offset),
      },
      () => context.hasMain(),
      () => this.#introduce(),
    );
    this.#forward = new Follower(this.#storage, (reader) => this.#source.read(reader));
    this.#return = new ReturnChannel(
      () => this.isMain,
      (message, offset) => {
        this.#backwardFaults?.pass(message.name, offset);
        listener.onMessage(this, message);
      },
    );
    this.#backward = new Follower(new Uint8Array(BACKWARD_BYTES), (reader) =>
      this.#return.read(reader),
    );
  }

  /** What the source's bytes show it to be. */
  get kind(): ChannelKind | 'silent' {
    return this.#source.kind ?? (this.#forward.bytes === 0 ? 'silent' : 'unknown');
  }

  /** Whether it carries a stream and its return path. */
  get isMain(): boolean {
    return this.kind === 'main' || this.kind === 'recovery';
  }

  /** What reports call it; undefined while it was never joined. */
  get name(): string | undefined {
    return this.#name;
  }

  get source(): SourceChannel {
    return this.#source;
  }

  get returnPath(): ReturnChannel {
    return this.#return;
  }

  /** Bytes that the destination was given. */
  get forwardBytes(): number {
    return this.#forwardBytes;
  }

  /** Bytes that the source was given. */
  get backwardBytes(): number {
    return this.#backwardBytes;
  }

  /** Why its bytes could not be followed to the end. */
  get problem(): WherryError | undefined {
    return this.#forward.problem ?? this.#backward.problem;
  }

  get end(): LinkEnd | undefined {
    return this.#end;
  }

  get timeMs(): number {
    return (this.#endMs ?? performance.now()) - this.startMs;
  }

  /** Reads until the source's bytes show what the connection is. @returns false when it ended without a byte */
  async hear(): Promise<boolean> {
    const follower = this.#forward;
    while (this.#source.kind === undefined && follower.problem === undefined && !this.#hasEnded) {
      await this.#readForward(follower.room());
    }
    if (this.#name === undefined && follower.bytes > 0) this.#introduce();
    return follower.bytes > 0;
  }

  /**
   * Passes on what comes from both sides until both have ended, or one is lost.
   *
   * @param far the destination's side; belongs to the link from here on
   * @param heard what {@link Link.hear} gave
   */
  async run(far: Transport, heard: Promise<boolean>): Promise<void> {
    this.#far = far;
    if (this.#end !== undefined) {
      far.destroy();
      return;
    }
    try {
      await Promise.all([this.#passForward(far, heard), this.#passBackward(far)]);
      this.drop('closed');
    } catch (error) {
      if (!(error instanceof WherryError) && this.#end === undefined) throw error;
      this.drop(error as WherryError);
    }
  }

  /** Drops both sides at once. Has no effect when it has ended. */
  drop(end: LinkEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#endMs = performance.now();
    this.#abort.abort();
    this.#near.destroy();
    this.#far?.destroy();
  }

  /** The connection says what it is: from here on it has a name, and faults that may strike it. */
  #introduce(): void {
    const { faults, listener } = this.#context;
    this.#name = this.#context.nameOf(this);
    listener.onKnown(this);
    this.#forwardFaults = faults.line(faultChannelOf(this.kind), this.#name);
    const backward = this.isMain ? 'return-path' : undefined;
    this.#backwardFaults = faults.line(backward, `${this.#name} (return path)`);
  }

  async #readForward(room: Uint8Array): Promise<Uint8Array> {
    const count = await this.#near.read(room);
    if (count === 0) {
      this.#hasEnded = true;
      this.#forward.finish();
    } else {
      this.#forward.heard(count);
    }
    return room.subarray(0, count);
  }

  async #passForward(far: Transport, heard: Promise<boolean>): Promise<void> {
    const { pace, delayMs } = this.#context;
    const outlet = new Outlet(far, {
      pace: pace.forward,
      delayMs,
      signal: this.#abort.signal,
    });
    await heard;
    // What was heard first is at the beginning of the buffer still.
    let chunk: Uint8Array = this.#storage.subarray(0, this.#forward.bytes);
    while (chunk.length > 0) {
      await this.#pass(chunk, this.#forward.bytes, outlet, this.#forwardFaults, '');
      chunk = this.#hasEnded ? chunk.subarray(0, 0) : await this.#readForward(this.#forward.room());
    }
    await outlet.end();
  }

  async #passBackward(far: Transport): Promise<void> {
    const { pace, delayMs } = this.#context;
    const outlet = new Outlet(this.#near, {
      pace: pace.backward,
      delayMs,
      signal: this.#abort.signal,
    });
    for (;;) {
      const room = this.#backward.room();
      const count = await far.read(room);
      if (count === 0) break;
      this.#backward.heard(count);
      const chunk = room.subarray(0, count);
      await this.#pass(chunk, this.#backward.bytes, outlet, this.#backwardFaults, 'return-path');
    }
    this.#backward.finish();
    await outlet.end();
  }

  async #pass(
    chunk: Uint8Array,
    endOffset: number,
    outlet: Outlet,
    faults: FaultLine | undefined,
    direction: '' | 'return-path',
  ): Promise<void> {
    const struck = faults?.strike(chunk, endOffset - chunk.length);
    const bytes = struck?.bytes ?? chunk;
    if (direction === '') this.#forwardBytes += bytes.length;
    else this.#backwardBytes += bytes.length;
    await Promise.all([this.#record(direction, bytes), outlet.write(bytes)]);
    if (struck?.isCut !== true) return;
    await outlet.flush();
    this.#context.listener.onCut(this);
  }

  #record(direction: '' | 'return-path', bytes: Uint8Array): Promise<void> | undefined {
    return this.#context.recording?.write(recordName(this.#name, direction), bytes);
  }
}

/** Names the file of a direction of a link: that of the first stream is the recording's own. */
export function recordName(link: string | undefined, direction: '' | 'return-path'): string {
  const name = link === 'main' ? '' : (link ?? 'silent').replaceAll(' ', '-');
  return [name, direction].filter((part) => part !== '').join('.');
}

function faultChannelOf(kind: ChannelKind | 'silent'): ChannelName | undefined {
  switch (kind) {
    case 'main':
    case 'recovery':
      return 'main';
    case 'multifd':
    case 'preempt':
      return kind;
    default:
      return undefined;
  }
}
