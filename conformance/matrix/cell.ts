import type { Peer, Release } from '../peers/peers.ts';
import { releases } from '../peers/peers.ts';
import type { MigrationSettings, QemuOptions } from '../qemu.ts';

/** What the real QEMU is: wherry is the other end. */
export type Side = 'source' | 'destination';

/** Both sides, as the table has them. */
export const sides: readonly Side[] = ['source', 'destination'];

/** Runs a cell: throws where the guest does not go on at the far end. */
export type Way = (bench: Bench) => Promise<void>;

/** A cell that does not work yet. */
export interface Failing {
  readonly side: Side;
  /** All, unless told. */
  readonly releases?: readonly Release[];
  readonly cause: string;
  /** What the failure says: another failure is a failed test, as is a success. */
  readonly says: RegExp;
}

/** A row of the table. */
export interface Mode {
  readonly group: string;
  readonly name: string;
  /** The first release that has it. */
  readonly since?: number;
  /** The last release that has it. */
  readonly until?: number;
  /** Why single releases lack it, where their number does not tell. */
  readonly lacking?: Partial<Readonly<Record<Release, string>>>;
  /** The machine of every QEMU of the cell; the folder is one that they share. */
  readonly machine?: QemuOptions | ((folder: string, side: Side) => QemuOptions);
  /** What the QEMU that the cell is about is set to. */
  readonly settings?: MigrationSettings;
  /** Huge pages of 2 MiB that it needs. */
  readonly hugePages?: number;
  /** How it goes with QEMU as source, or why that is no cell. */
  readonly source: Way | string;
  /** How it goes with QEMU as destination, or why that is no cell. */
  readonly destination: Way | string;
  readonly failing?: readonly Failing[];
}

/** A mode with a release, from one side. */
export interface Cell {
  readonly mode: Mode;
  readonly release: Release;
  readonly side: Side;
}

/** What a way is given. */
export interface Bench extends Cell {
  readonly peer: Peer;
  readonly machine: QemuOptions;
  /** A folder of the cell's own. */
  readonly folder: string;
  /** Ends the cell as one that this machine cannot run. */
  readonly skip: (reason: string) => never;
}

/** What a test says of itself to the reporter. */
export interface CellMark {
  readonly group: string;
  readonly mode: string;
  readonly release: Release;
  readonly side: Side;
  /** Why it does not work yet: then the test has seen that it still does not. */
  readonly failing?: string;
}

declare module 'vitest' {
  interface TaskMeta {
    cell?: CellMark;
  }
}

/** Says why a cell cannot be: because of the release, or of the side. */
export function absenceOf({ mode, release, side }: Cell): string | undefined {
  const { since = 0, until = Number.POSITIVE_INFINITY, lacking } = mode;
  if (Number(release) < since) return `since ${since}`;
  if (Number(release) > until) return `until ${until}`;
  const way = mode[side];
  return lacking?.[release] ?? (typeof way === 'string' ? way : undefined);
}

/** Finds what is known to be wrong with a cell. */
export function failingOf({ mode, release, side }: Cell): Failing | undefined {
  return mode.failing?.find(
    (known) => known.side === side && (known.releases ?? releases).includes(release),
  );
}

/** Lists all cells of a table, those that cannot be with them. */
export function cellsOf(modes: readonly Mode[]): Cell[] {
  return modes.flatMap((mode) =>
    sides.flatMap((side) => releases.map((release) => ({ mode, release, side }))),
  );
}

/**
 * Takes a part of a table that has each mode once from each side, and the releases in turn.
 *
 * @returns cells that can be
 */
export function partOf(modes: readonly Mode[]): Cell[] {
  return modes.flatMap((mode, row) =>
    sides.flatMap((side, column) => {
      const cells = cellsOf([mode]).filter(
        (cell) => cell.side === side && absenceOf(cell) === undefined,
      );
      return cells.length === 0 ? [] : [cells[(row + 2 * column) % cells.length]!];
    }),
  );
}
