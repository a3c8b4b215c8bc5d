import type { Dump } from '../dump.ts';
import { type CheckOptions, checkDumps } from './check-dumps.ts';
import { type Finding, type Verdict, worstVerdict } from './finding.ts';
import { compareReleases, releaseOfMachine } from './known.ts';

/** Which pairs of releases can exchange a guest of one machine type. */
export interface CheckMatrix {
  readonly machine: string;
  /** Oldest first. */
  readonly releases: readonly string[];
  /** Every ordered pair of different releases. */
  readonly pairs: readonly CheckedPair[];
}

/** One migration of the matrix. */
export interface CheckedPair {
  readonly source: string;
  readonly dest: string;
  /** `absent` when a side has no such machine type: its name is of a newer release. */
  readonly verdict: Verdict | 'absent';
  readonly findings: readonly Finding[];
}

/**
 * Checks all ordered pairs of dumps, as if each was made with `machine`: the types of a dump do not
 * depend on it.
 *
 * @param dumps by release, such as `10.0`
 */
export function checkMatrix(
  dumps: ReadonlyMap<string, Dump>,
  machine: string,
  options: Omit<CheckOptions, 'direction' | 'history'> = {},
): CheckMatrix {
  const releases = [...dumps.keys()].sort(compareReleases);
  const newest = releaseOfMachine(machine);
  const has = (release: string): boolean =>
    newest === undefined || compareReleases(newest, release) <= 0;
  const pairs: CheckedPair[] = [];
  for (const source of releases) {
    for (const dest of releases) {
      if (source === dest) continue;
      if (!has(source) || !has(dest)) {
        pairs.push({ source, dest, verdict: 'absent', findings: [] });
        continue;
      }
      const [from, to] = [source, dest].map((release) => ({ ...dumps.get(release)!, machine }));
      const findings = checkDumps(from!, to!, { ...options, history: dumps });
      pairs.push({ source, dest, verdict: worstVerdict(findings), findings });
    }
  }
  return { machine, releases, pairs };
}
