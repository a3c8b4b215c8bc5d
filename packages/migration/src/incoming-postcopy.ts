import type { GuestRam, RamBlock } from '@wherry/page-engine';
import type { Command } from '@wherry/stream';
import type { Capabilities } from './capabilities.ts';
import { MigrationError } from './migration-error.ts';
import { checkPostcopyAdvice } from './postcopy-advice.ts';
import { recvBitmapBytes } from './source-recovery.ts';

/** How far postcopy has come, in the order in which QEMU numbers it. @see PostcopyState in QEMU's migration/postcopy-ram.h */
const STATES = ['none', 'advise', 'discard', 'listening', 'running'] as const;
type State = (typeof STATES)[number];

/** Follows postcopy on its way in: which of its commands may come when, and those that are about RAM alone. */
export class IncomingPostcopy {
  readonly #ram: GuestRam;
  readonly #isOfRam: boolean;
  readonly #isOfBitmaps: boolean;
  #state: State = 'none';
  #isAdvised = false;

  constructor(ram: GuestRam, capabilities: Capabilities) {
    this.#ram = ram;
    this.#isOfRam = capabilities.has('postcopy-ram');
    this.#isOfBitmaps = capabilities.has('dirty-bitmaps');
  }

  /** Whether pages follow the guest, rather than dirty bitmaps alone. */
  get isOfRam(): boolean {
    return this.#isOfRam;
  }

  /** Whether ADVISE told of page sizes: the list of RAM blocks has them too. */
  get isAdvised(): boolean {
    return this.#isAdvised;
  }

  /** Whether stale pages were discarded, or may be, and the guest does not run yet. */
  get isBetween(): boolean {
    return this.#state === 'discard' || this.#state === 'listening';
  }

  /** Whether pages come by request. */
  get hasBegun(): boolean {
    return this.#isOfRam && (this.#state === 'listening' || this.#state === 'running');
  }

  /** Whether the guest is here, with pages or dirty bitmaps that are missing. */
  get isRunning(): boolean {
    return this.#state === 'running';
  }

  /** @throws MigrationError `COMMAND_UNEXPECTED`, `PAGE_SIZE_MISMATCH` */
  advise(command: Command & { name: 'postcopy-advise' }, offset: number): void {
    this.#enter('advise', ['none'], command, offset);
    checkPostcopyAdvice(command.ram, this.#ram, this.#isOfRam, offset);
    this.#isAdvised = command.ram !== undefined;
  }

  /** Forgets stale pages. @throws MigrationError `COMMAND_UNEXPECTED` */
  discard(command: Command & { name: 'postcopy-ram-discard' }, offset: number): void {
    this.#enter('discard', ['advise', 'discard'], command, offset);
    const { block: name, ranges } = command;
    const block = this.#block(command, `ram_discard_range: Failed to find block '${name}'`, offset);
    try {
      for (const { start, length } of ranges) block.discardRange(start, length);
    } catch (cause) {
      throw unexpectedCommand(command, (cause as Error).message, offset, cause);
    }
  }

  /** @throws MigrationError `COMMAND_UNEXPECTED` */
  listen(command: Command, offset: number): void {
    this.#enter('listening', ['advise', 'discard'], command, offset);
    if (!this.#isOfRam && !this.#isOfBitmaps) {
      throw unexpectedCommand(command, 'postcopy-ram is off here', offset);
    }
  }

  /** @throws MigrationError `COMMAND_UNEXPECTED` */
  run(command: Command, offset: number): void {
    this.#enter('running', ['listening'], command, offset);
  }

  /** The guest runs before its pages are loaded, from a file: nobody commanded it. */
  runFromFile(): void {
    this.#state = 'running';
  }

  /** Gives the bitmap of a block's pages that are here. @throws MigrationError `COMMAND_UNEXPECTED` */
  received(command: Command & { name: 'recv-bitmap' }, offset: number): Uint8Array {
    const block = this.#block(command, `block '${command.block}' not found`, offset);
    const bitmap = new Uint8Array(recvBitmapBytes(block.pageCount));
    bitmap.set(block.receivedBitmap());
    return bitmap;
  }

  #block(command: Command & { block: string }, problem: string, offset: number): RamBlock {
    const block = this.#ram.block(command.block);
    if (block === undefined) throw unexpectedCommand(command, problem, offset);
    return block;
  }

  #enter(next: State, from: readonly State[], command: Command, offset: number): void {
    if (!from.includes(this.#state)) {
      const state = STATES.indexOf(this.#state);
      const name = command.name.toUpperCase().replaceAll('-', '_');
      const problem = `CMD_${name} in wrong postcopy state (${state})`;
      throw unexpectedCommand(command, problem, offset);
    }
    this.#state = next;
  }
}

/** Says that a command has no place where it stands. */
export function unexpectedCommand(
  command: Command,
  problem: string,
  offset: number,
  cause?: unknown,
): MigrationError {
  return new MigrationError('COMMAND_UNEXPECTED', problem, {
    offset,
    path: [`command ${command.name}`],
    likely: 'The two sides have different capabilities, or the source breaks the protocol',
    cause,
  });
}
