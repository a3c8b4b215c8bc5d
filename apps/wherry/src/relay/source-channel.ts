import { type ByteReader, need, type Parser } from '@wherry/bytes';
import { type StreamModel, StreamWalk } from '@wherry/snapshot';
import { type Command, STREAM_MAGIC } from '@wherry/stream';
import { passAll } from './follower.ts';

/** What a connection is, by the first bytes that the source sends over it. */
export type ChannelKind = 'main' | 'recovery' | 'multifd' | 'preempt' | 'tls' | 'unknown';

/** What a migration goes through, in this order; recovery follows a break in postcopy. */
export type Phase = 'setup' | 'ram' | 'switchover' | 'devices' | 'postcopy' | 'recovery' | 'end';

/** Who hears of what passes; offsets are those behind what is told. */
export interface PassingListener {
  onPhase(phase: Phase, offset: number): void;
  onSection(kind: 'start' | 'part' | 'end' | 'full', idstr: string, offset: number): void;
  onCommand(command: Command, offset: number): void;
}

const MULTIFD_MAGIC = 0x11223344;
const MULTIFD_HELLO_BYTES = 64;
const MULTIFD_ID_OFFSET = 24;
const RECV_BITMAP_HEAD = 0x08000a00;
const TLS_HANDSHAKE = 0x16;

/** Reads what the source sends over one connection, whatever it is. */
export class SourceChannel {
  readonly #listener: PassingListener;
  readonly #isFurther: () => boolean;
  readonly #onKind: () => void;
  readonly #phases = new Set<Phase>();
  #walk: StreamWalk | undefined;
  #kind: ChannelKind | undefined;
  #multifdId: number | undefined;

  /**
   * @param isFurther whether a migration has a main connection already
   * @param onKind hears that the kind is known, before anything is told of what passes
   */
  constructor(listener: PassingListener, isFurther: () => boolean, onKind: () => void) {
    this.#listener = listener;
    this.#isFurther = isFurther;
    this.#onKind = onKind;
  }

  /** What the connection is; undefined until it is known. */
  get kind(): ChannelKind | undefined {
    return this.#kind;
  }

  /** The number by which a multifd channel names itself. */
  get multifdId(): number | undefined {
    return this.#multifdId;
  }

  /** What was seen of the stream; undefined on a connection that carries none. */
  get model(): StreamModel | undefined {
    return this.#walk?.model;
  }

  /** Where the stream is, for the path of an error that has none. */
  get path(): readonly string[] {
    return this.#walk?.path ?? [];
  }

  /** The phase that was reached last. */
  get phase(): Phase | undefined {
    return [...this.#phases].at(-1);
  }

  /** Whether a phase was reached. */
  reached(phase: Phase): boolean {
    return this.#phases.has(phase);
  }

  /** Reads the connection to its end. */
  *read(reader: ByteReader): Parser<void> {
    while (reader.available < 4 && !reader.ended) yield 4;
    if (reader.available === 0) return;
    const kind = this.#kindOf(reader.available < 4 ? undefined : reader.peekU32());
    if (kind === 'multifd') {
      yield* need(reader, MULTIFD_HELLO_BYTES);
      this.#multifdId = reader.peekU8(MULTIFD_ID_OFFSET);
    }
    this.#kind = kind;
    this.#onKind();
    if (kind === 'main' || kind === 'recovery') {
      this.#walk = this.#newWalk(reader);
      yield* kind === 'main' ? this.#walk.walk(reader) : this.#walk.walkFile(reader);
    } else {
      yield* passAll(reader);
    }
  }

  #kindOf(word: number | undefined): ChannelKind {
    if (word === undefined) return 'unknown';
    if (word === STREAM_MAGIC) return 'main';
    if (word === MULTIFD_MAGIC) return 'multifd';
    if ((word & 0xffff_ff00) === RECV_BITMAP_HEAD) return 'recovery';
    if (word >>> 24 === TLS_HANDSHAKE) return 'tls';
    // Bare RAM records: nothing but their place tells them from anything else.
    return this.#isFurther() ? 'preempt' : 'unknown';
  }

  #newWalk(reader: ByteReader): StreamWalk {
    const listener = this.#listener;
    return new StreamWalk({
      keepBodies: false,
      onCommand: (command) => {
        this.#enter(PHASE_OF_COMMAND[command.name] ?? 'setup', reader.offset);
        listener.onCommand(command, reader.offset);
      },
      onSection: (kind, { idstr }) => {
        this.#enter(this.#phaseOfSection(kind, idstr), reader.offset);
        listener.onSection(kind, idstr, reader.offset);
      },
      onEof: () => this.#enter('end', reader.offset),
    });
  }

  #phaseOfSection(kind: 'start' | 'part' | 'end' | 'full', idstr: string): Phase {
    if (kind === 'full') return this.#phases.has('switchover') ? 'devices' : 'setup';
    if (kind === 'part') return idstr === 'ram' ? 'ram' : 'setup';
    return kind === 'end' ? 'switchover' : 'setup';
  }

  #enter(phase: Phase, offset: number): void {
    if (this.#phases.has(phase)) return;
    this.#phases.add(phase);
    this.#listener.onPhase(phase, offset);
  }
}

const PHASE_OF_COMMAND: Partial<Record<Command['name'], Phase>> = {
  'switchover-start': 'switchover',
  packaged: 'switchover',
  'postcopy-run': 'postcopy',
  'postcopy-resume': 'recovery',
};
