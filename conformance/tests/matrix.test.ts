import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HugePages } from '../huge-pages.ts';
import { absenceOf, type Bench, type Cell, cellsOf, failingOf, partOf } from '../matrix/cell.ts';
import { modes } from '../matrix/modes.ts';
import { peerTest } from '../peer-test.ts';

// CI has time for a part.
const cells = process.env['WHERRY_MATRIX'] === 'part' ? partOf(modes) : cellsOf(modes);

for (const cell of cells) {
  if (absenceOf(cell) !== undefined) continue;
  const { mode, release, side } = cell;
  const failing = failingOf(cell);
  peerTest(
    release,
    `as ${side}, ${mode.group}: ${mode.name}${failing === undefined ? '' : ' (fails)'}`,
    async (peer, skip) => {
      const folder = mkdtempSync(join(tmpdir(), 'wherry-cell-'));
      try {
        const machine =
          typeof mode.machine === 'function' ? mode.machine(folder, side) : (mode.machine ?? {});
        await run({ ...cell, peer, machine, folder, skip });
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
    {
      meta: {
        cell: {
          ...{ group: mode.group, mode: mode.name, release, side },
          ...(failing === undefined ? {} : { failing: failing.cause }),
        },
      },
    },
  );
}

async function run(bench: Bench): Promise<void> {
  const way = bench.mode[bench.side];
  if (typeof way === 'string') throw new TypeError(`this is no cell: ${way}`);
  const failing = failingOf(bench);
  using _ = hugePagesFor(bench);
  if (failing === undefined) {
    await way(bench); // before the huge pages are given back
    return;
  }
  const failure = await way(bench).catch((error: Error) => error);
  if (failure === undefined) throw new Error(`it works now: take "${failing.cause}" out`);
  if (!failing.says.test(failure.message)) throw failure;
}

function hugePagesFor({ mode, skip }: Pick<Cell, 'mode'> & Pick<Bench, 'skip'>): Disposable {
  if (mode.hugePages === undefined) return { [Symbol.dispose]: () => {} };
  const pages = HugePages.reserve(mode.hugePages);
  return pages instanceof HugePages ? pages : skip(pages.missing);
}
