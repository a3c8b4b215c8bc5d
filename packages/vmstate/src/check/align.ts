import { fixedBytes, isUnused, type TableField } from './table.ts';

/** Two fields that stand for each other, or a run of fields that have no counterpart. */
export type Segment =
  | { readonly kind: 'pair'; readonly source: TableField; readonly dest: TableField }
  | {
      readonly kind: 'gap';
      readonly source: readonly TableField[];
      readonly dest: readonly TableField[];
    };

/** Bounds the work of one check: cells of all alignments together. */
export interface AlignBudget {
  cells: number;
}

/** Cells of one alignment: a table of 2000 fields that differs all through. */
const MAX_CELLS = 4_000_000;

/** Tells how well two fields fit; 0 when they are not the same. */
export type Likeness = (source: TableField, dest: TableField) => number;

/**
 * Aligns two lists of fields so that what is on both sides stands together: the sequence alignment of
 * the highest total likeness. Whatever is in between becomes gaps.
 *
 * @returns undefined when the lists differ in more than the budget allows to compare
 */
export function alignFields(
  source: readonly TableField[],
  dest: readonly TableField[],
  likeness: Likeness,
  budget: AlignBudget,
): Segment[] | undefined {
  let first = 0;
  while (first < source.length && first < dest.length && isTwin(source[first]!, dest[first]!)) {
    first++;
  }
  let sEnd = source.length;
  let dEnd = dest.length;
  while (sEnd > first && dEnd > first && isTwin(source[sEnd - 1]!, dest[dEnd - 1]!)) {
    sEnd--;
    dEnd--;
  }
  const middle = alignMiddle(source.slice(first, sEnd), dest.slice(first, dEnd), likeness, budget);
  if (middle === undefined) return undefined;
  const pairAt = (s: number, d: number): Segment => ({
    kind: 'pair',
    source: source[s]!,
    dest: dest[d]!,
  });
  return [
    ...source.slice(0, first).map((_, i) => pairAt(i, i)),
    ...middle,
    ...source.slice(sEnd).map((_, i) => pairAt(sEnd + i, dEnd + i)),
  ];
}

/** Whether two fields are the same in all that an alignment looks at. */
function isTwin(a: TableField, b: TableField): boolean {
  return (
    a.name === b.name &&
    a.elementBytes === b.elementBytes &&
    a.count === b.count &&
    a.conditional === b.conditional &&
    a.table?.name === b.table?.name
  );
}

function alignMiddle(
  source: readonly TableField[],
  dest: readonly TableField[],
  likeness: Likeness,
  budget: AlignBudget,
): Segment[] | undefined {
  const width = dest.length + 1;
  const cells = (source.length + 1) * width;
  budget.cells -= cells;
  if (cells > MAX_CELLS || budget.cells < 0) return undefined;
  // best[s][d]: the highest total of aligning what follows s and d.
  const best = new Int32Array(cells);
  const fit = new Uint8Array(cells);
  for (let s = source.length - 1; s >= 0; s--) {
    for (let d = dest.length - 1; d >= 0; d--) {
      const at = s * width + d;
      const like = likeness(source[s]!, dest[d]!);
      fit[at] = like;
      const both = like === 0 ? 0 : like + best[at + width + 1]!;
      best[at] = Math.max(both, best[at + width]!, best[at + 1]!);
    }
  }
  const segments: Segment[] = [];
  let gap: { source: TableField[]; dest: TableField[] } = { source: [], dest: [] };
  const closeGap = (): void => {
    if (gap.source.length + gap.dest.length > 0) segments.push({ kind: 'gap', ...gap });
    gap = { source: [], dest: [] };
  };
  let s = 0;
  let d = 0;
  while (s < source.length || d < dest.length) {
    const at = s * width + d;
    const inBoth = s < source.length && d < dest.length;
    if (inBoth && fit[at]! > 0 && best[at] === fit[at]! + best[at + width + 1]!) {
      closeGap();
      segments.push({ kind: 'pair', source: source[s++]!, dest: dest[d++]! });
    } else if (d === dest.length || (s < source.length && best[at] === best[at + width])) {
      gap.source.push(source[s++]!);
    } else {
      gap.dest.push(dest[d++]!);
    }
  }
  closeGap();
  return segments;
}

/** A part of a gap: its two sides are of equal length on the wire, or it is what is left over. */
export interface GapPart {
  readonly balanced: boolean;
  readonly source: readonly TableField[];
  readonly dest: readonly TableField[];
}

/** Parts a gap where both sides reach the same number of bytes, so that what took another's place stands beside it. */
export function partGap(source: readonly TableField[], dest: readonly TableField[]): GapPart[] {
  const parts: GapPart[] = [];
  let s = 0;
  let d = 0;
  for (;;) {
    const part = balancedPart(source, dest, s, d);
    if (part === undefined) break;
    parts.push({ balanced: true, source: source.slice(s, part.s), dest: dest.slice(d, part.d) });
    s = part.s;
    d = part.d;
  }
  if (s < source.length || d < dest.length) {
    parts.push({ balanced: false, source: source.slice(s), dest: dest.slice(d) });
  }
  return parts;
}

function balancedPart(
  source: readonly TableField[],
  dest: readonly TableField[],
  sStart: number,
  dStart: number,
): { s: number; d: number } | undefined {
  let s = sStart;
  let d = dStart;
  let sBytes = 0;
  let dBytes = 0;
  for (;;) {
    if (s > sStart && d > dStart && sBytes === dBytes) return { s, d };
    const fromSource = sBytes <= dBytes;
    const next = fromSource ? source[s] : dest[d];
    const bytes = next === undefined ? undefined : fixedBytes(next);
    if (bytes === undefined || (next?.conditional === true && !isUnused(next))) {
      return isMultiple(source[sStart], dest[dStart])
        ? { s: sStart + 1, d: dStart + 1 }
        : undefined;
    }
    if (fromSource) {
      s++;
      sBytes += bytes;
    } else {
      d++;
      dBytes += bytes;
    }
  }
}

/** Whether one of two fields may be an array that is as long as the other. */
function isMultiple(a: TableField | undefined, b: TableField | undefined): boolean {
  const bytesA = a && fixedBytes(a);
  const bytesB = b && fixedBytes(b);
  if (!bytesA || !bytesB) return false;
  return (
    (a.mayBeArray === true && bytesB % bytesA === 0) ||
    (b.mayBeArray === true && bytesA % bytesB === 0)
  );
}
