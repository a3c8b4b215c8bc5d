import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type FixtureBytes, type FixtureMeta, fixturesDirectory } from './fixtures.ts';
import { findPeer, isPeer, type Peer, type Release, releases } from './peers/peers.ts';
import { type RecordCase, startSource } from './record-case.ts';
import { recordCases } from './record-cases.ts';

/**
 * `node conformance/record.ts [name…]`: records the fixtures anew; a name is a release, a case or
 * `release/case`, none means all.
 */
async function main(names: readonly string[]): Promise<number> {
  const known = new Set<string>([...releases, ...recordCases.map(({ name }) => name)]);
  for (const name of names) {
    if (name.split('/').every((part) => known.has(part))) continue;
    console.error(`unknown name ${name}; known: ${[...known].join(', ')}, or release/case`);
    return 2;
  }
  const wants = (release: Release, name: string): boolean =>
    names.length === 0 || [release, name, `${release}/${name}`].some((n) => names.includes(n));
  let failed = 0;
  for (const release of releases) {
    const wanted = recordCases.filter(
      (known) => known.releases.includes(release) && wants(release, known.name),
    );
    for (const recordCase of wanted) {
      try {
        const peer = findPeer(release, recordCase.target);
        if (!isPeer(peer)) throw new Error(peer.missing);
        console.log(`${release}/${recordCase.name}: ${await record(peer, recordCase)}`);
      } catch (error) {
        console.error(`${release}/${recordCase.name}: ${(error as Error).message}`);
        failed++;
      }
    }
  }
  return failed === 0 ? 0 : 1;
}

async function record(peer: Peer, recordCase: RecordCase): Promise<string> {
  const { name, target, machine, firmware, guest, capabilities, parameters } = recordCase;
  const isOurGuest = !(firmware instanceof Uint8Array);
  await using source = await startSource(peer, recordCase);
  const { recording, firstPassAtDestination, lastPass } = await recordCase.run(source, recordCase);
  const info = await source.qmp.execute('query-migrate');
  if (source.marks.some(({ wrongWords }) => wrongWords > 0)) {
    throw new Error(`the guest found wrong words: ${source.serialText}`);
  }
  if (isOurGuest && lastPass === undefined && !source.serialText.endsWith('\n'))
    throw new Error('stopped within a mark: record it again');

  const directory = join(fixturesDirectory, peer.release);
  mkdirSync(directory, { recursive: true });
  const store = (file: string, bytes: Uint8Array): FixtureBytes => {
    const stored = file.endsWith('.gz') ? gzipSync(bytes, { level: 9 }) : bytes;
    writeFileSync(join(directory, file), stored);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    return { file, lengthBytes: bytes.length, sha256 };
  };
  const stream = store(`${name}.qevm.gz`, recording.forward);
  const { backward } = recording;
  const meta: FixtureMeta = {
    release: peer.release,
    version: peer.version,
    case: name,
    ...(target === undefined ? {} : { target }),
    machine,
    args: source.args,
    ...(isOurGuest ? { guest } : {}),
    capabilities,
    parameters: parameters as Record<string, number>,
    ...(isOurGuest ? { lastPass: lastPass ?? source.marks.at(-1)!.pass } : {}),
    ...(firstPassAtDestination === undefined ? {} : { firstPassAtDestination }),
    ram: countersOf(info.ram),
    ...(info['xbzrle-cache'] === undefined ? {} : { xbzrle: countersOf(info['xbzrle-cache']) }),
    stream,
    ...(backward.length === 0 ? {} : { returnPath: store(`${name}.return-path`, backward) }),
  };
  writeFileSync(join(directory, `${name}.json`), `${JSON.stringify(meta, null, 2)}\n`);
  return `${stream.lengthBytes} bytes, pass ${meta.lastPass ?? 'none'}, ${backward.length} bytes back`;
}

/** Keeps the numbers that are properties of the stream, not of this machine's speed. */
function countersOf(statistics: object | undefined): Record<string, number> {
  const rates = /rate|mbps|pages-per-second/;
  return Object.fromEntries(
    Object.entries(statistics ?? {}).filter(
      ([name, value]) => typeof value === 'number' && !rates.test(name),
    ),
  );
}

process.exitCode = await main(process.argv.slice(2));
