import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type Analysis, analysisPath, listFixtures, loadFixture } from './fixtures.ts';

/**
 * `node conformance/record-analysis.ts analyze-migration.py [name…]`: records what QEMU's own analyser,
 * which is no part of this repository, prints of each fixture, or of those of a release, a case or
 * `release/case`.
 */
function main([script, ...names]: readonly string[]): number {
  if (script === undefined || !existsSync(script)) {
    console.error('usage: record-analysis.ts analyze-migration.py [release|case|release/case…]');
    return 2;
  }
  const scriptSha256 = createHash('sha256').update(readFileSync(script)).digest('hex');
  const directory = mkdtempSync(join(tmpdir(), 'wherry-analysis-'));
  try {
    const file = join(directory, 'stream.qevm');
    for (const { release, case: name } of listFixtures()) {
      const labels = [release, name, `${release}/${name}`];
      if (names.length > 0 && !labels.some((label) => names.includes(label))) continue;
      const { meta, stream } = loadFixture(release, name);
      writeFileSync(file, stream);
      const state = analyse(resolve(script), file, 'state');
      const desc = analyse(resolve(script), file, 'desc');
      const analysis: Analysis = { scriptSha256, streamSha256: meta.stream.sha256, state, desc };
      writeFileSync(analysisPath(release, name), gzipSync(JSON.stringify(analysis), { level: 9 }));
      const outcome = 'text' in state ? `${state.text.length} characters` : state.refused;
      console.log(`${release}/${name}: ${outcome}`);
    }
    return 0;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function analyse(script: string, file: string, dump: 'state' | 'desc'): Analysis['state'] {
  const run = spawnSync('python3', [script, '-f', file, '-d', dump], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (run.error !== undefined) throw run.error;
  if (run.status === 0) return { text: run.stdout };
  // It wraps every exception in one that holds the whole vmdesc; the first is the reason.
  const first = run.stderr.split('\nDuring handling of the above exception')[0]!;
  return { refused: first.trim().split('\n').at(-1)!.slice(0, 500) };
}

process.exitCode = main(process.argv.slice(2));
