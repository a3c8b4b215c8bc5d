import { setTimeout as sleep } from 'node:timers/promises';
import type { Transport } from '@wherry/migration';
import { connect, type Listener, TransportError } from '@wherry/transport';
import type { Fault } from './fault.ts';
import { FaultPlan } from './fault-line.ts';
import { Link, type LinkContext, type LinkListener } from './link.ts';
import { Pace } from './outlet.ts';
import type { Recording } from './recording.ts';

/** What a connection may take to say its first bytes, unless it belongs to a migration that runs. */
const SILENCE_MS = 30_000;
/** How long one that has spoken waits for an older one: releases before 8.0 go by the order. */
const ORDER_MS = 250;
const CONNECT_MS = 10_000;
/** More than the 255 channels of multifd. */
const MAX_LINKS = 300;

/** How to relay. */
export interface RelayOptions {
  readonly faults?: readonly Fault[];
  readonly recording?: Recording | undefined;
  /** Bytes a second, in each direction, over all connections. */
  readonly bytesPerSecond?: number | undefined;
  readonly delayMs?: number | undefined;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly onEvent?: Partial<RelayListener>;
}

/** Hears of what happens at the relay, besides what passes. */
export interface RelayListener extends LinkListener {
  onEnd(link: Link): void;
  /** A connection was not joined: it stayed silent, or the destination could not be reached. */
  onRefuse(reason: string): void;
}

/**
 * Stands between the two sides of a migration: joins each connection of the source to one to the
 * destination, in the order in which they were made, and passes everything on in both directions.
 *
 * A connection is joined when it speaks, or when it came after the main connection of a migration that
 * runs (a preempt channel may stay silent). So a stranger before the migration holds nothing.
 */
export class Relay {
  readonly #listener: Listener;
  readonly #target: string;
  readonly #options: RelayOptions;
  readonly #faults: FaultPlan;
  readonly #context: LinkContext;
  /** Links that were joined, in their order. */
  readonly #links: Link[] = [];
  readonly #open = new Set<Link>();
  /** Connections that are not joined yet; called when a main connection is. */
  readonly #waiting = new Map<number, () => void>();
  readonly #over = Promise.withResolvers<void>();
  #count = 0;
  /** Settles when the connection before has been joined or has gone. */
  #before: Promise<void> = Promise.resolve();
  /** The main connection of the migration that runs, and its place in the order. */
  #main: { readonly link: Link; readonly order: number } | undefined;
  #unreachable: Error | undefined;

  constructor(listener: Listener, target: string, options: RelayOptions) {
    this.#listener = listener;
    this.#target = target;
    this.#options = options;
    this.#faults = new FaultPlan(options.faults ?? []);
    const { bytesPerSecond, onEvent } = options;
    const pace = (): Pace | undefined =>
      bytesPerSecond === undefined ? undefined : new Pace(bytesPerSecond);
    this.#context = {
      listener: {
        onKnown: (link) => onEvent?.onKnown?.(link),
        onPhase: (link, phase, offset) => onEvent?.onPhase?.(link, phase, offset),
        onSection: (link, kind, idstr) => onEvent?.onSection?.(link, kind, idstr),
        onMessage: (link, message) => onEvent?.onMessage?.(link, message),
        onCut: (link) => {
          onEvent?.onCut?.(link);
          for (const each of this.#open) each.drop('cut');
        },
      },
      faults: this.#faults,
      recording: options.recording,
      pace: { forward: pace(), backward: pace() },
      delayMs: options.delayMs,
      hasMain: () => this.#main !== undefined,
      nameOf: (link) => this.#nameOf(link),
    };
  }

  /** The links that were joined, in their order. */
  get links(): readonly Link[] {
    return this.#links;
  }

  get faults(): FaultPlan {
    return this.#faults;
  }

  /** Why the destination could not be reached. */
  get unreachable(): Error | undefined {
    return this.#unreachable;
  }

  /** Whether the migration broke off in postcopy, so that a recovery may follow. */
  get isPaused(): boolean {
    const mains = this.#links.filter(({ isMain }) => isMain);
    const isPostcopy = mains.some(({ source }) => source.reached('postcopy'));
    return isPostcopy && mains.at(-1)?.source.reached('end') !== true;
  }

  /**
   * Relays until a migration is over: all its connections have ended, and no recovery can follow.
   *
   * @throws TransportError when the listener fails; the signal's reason
   */
  async run(): Promise<void> {
    const { signal } = this.#options;
    const onAbort = (): void => this.#over.reject(signal.reason);
    this.#over.promise.catch(() => {}); // it may end again while it ends
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([this.#accept(), this.#over.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      for (const link of this.#open) link.drop('dropped');
      await this.#listener.close();
    }
  }

  async #accept(): Promise<void> {
    for (;;) {
      const near = await this.#listener.accept().catch((error: unknown) => {
        // exec, fd and file give one connection.
        if (this.#count === 0 || !isUnsupported(error)) throw error;
      });
      if (near === undefined) return this.#over.promise;
      if (this.#open.size >= MAX_LINKS) {
        near.destroy();
        continue;
      }
      this.#serve(near).catch((error: unknown) => this.#over.reject(error));
    }
  }

  async #serve(near: Transport): Promise<void> {
    const link = new Link(near, this.#context);
    this.#open.add(link);
    const order = this.#count++;
    const before = this.#before;
    const joined = Promise.withResolvers<void>();
    this.#before = joined.promise;
    let far: Transport | undefined;
    const heard = link.hear();
    try {
      if (!(await this.#mayJoin(heard, order))) return;
      await Promise.race([before, sleep(ORDER_MS)]);
      far = await this.#connect(link);
      if (far === undefined) return;
      this.#links.push(link);
      if (link.isMain) this.#goLive(link, order);
    } finally {
      joined.resolve();
      if (far === undefined) this.#leave(link);
    }
    await link.run(far, heard);
    this.#options.onEvent?.onEnd?.(link);
    this.#leave(link);
  }

  /** Waits until a connection speaks, or a migration that runs gives it a meaning. */
  async #mayJoin(heard: Promise<boolean>, order: number): Promise<boolean> {
    const further = Promise.withResolvers<boolean>();
    const timer = new AbortController();
    if (this.#main !== undefined && this.#main.order < order) further.resolve(true);
    this.#waiting.set(order, () => further.resolve(true));
    try {
      return await Promise.race([
        heard,
        further.promise,
        sleep(SILENCE_MS, false, { signal: timer.signal }),
      ]);
    } catch {
      return false; // it was lost before it said anything
    } finally {
      timer.abort();
      this.#waiting.delete(order);
      heard.catch(() => {});
    }
  }

  async #connect(link: Link): Promise<Transport | undefined> {
    const { signal, onEvent } = this.#options;
    try {
      return await connect(this.#target, { signal, timeoutMs: CONNECT_MS });
    } catch (error) {
      if (signal.aborted) return undefined;
      this.#unreachable = error as Error;
      onEvent?.onRefuse?.((error as Error).message);
      link.drop('dropped');
      return undefined;
    }
  }

  #goLive(link: Link, order: number): void {
    this.#main = { link, order };
    for (const [waiting, join] of this.#waiting) if (waiting > order) join();
  }

  #leave(link: Link): void {
    link.drop('dropped');
    this.#open.delete(link);
    if (this.#main?.link === link) this.#main = undefined;
    const isIdle = this.#links.every(({ end }) => end !== undefined);
    const hasRun = this.#links.length > 0 || this.#unreachable !== undefined;
    if (hasRun && isIdle && !this.isPaused) this.#over.resolve();
  }

  #nameOf(link: Link): string {
    const { kind } = link;
    const { multifdId } = link.source;
    const base = kind === 'multifd' ? `multifd ${multifdId}` : kind;
    const taken = new Set(this.#links.map(({ name }) => name));
    let name: string = base;
    for (let n = 2; taken.has(name); n++) name = `${base} ${n}`;
    return name;
  }
}

function isUnsupported(error: unknown): boolean {
  return error instanceof TransportError && error.code === 'UNSUPPORTED';
}
