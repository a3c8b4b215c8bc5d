import { streamFacts } from '@wherry/snapshot';
import {
  checkDumps,
  checkMatrix,
  checkStream,
  type Dump,
  parseDump,
  type StreamFacts,
} from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadDump, loadFixture } from '../fixtures.ts';
import { releases } from '../peers/peers.ts';
import { walkStream } from '../walk-stream.ts';

const dumps: ReadonlyMap<string, Dump> = new Map(
  releases.map((release) => [release, parseDump(loadDump(release))]),
);
const pairs = releases.flatMap((source) => releases.map((dest) => [source, dest] as const));

const factsOf = (release: string, name: string): StreamFacts =>
  streamFacts(walkStream(loadFixture(release, name).stream));

/** What was seen between real QEMUs: `-device TYPE` saved by one release and loaded by the other. */
describe('devices that do not load in reality', () => {
  test.each([
    ['isa-vga', '10.0', '11.1', 'breaks'],
    ['am53c974', '7.2', '10.0', 'breaks'],
    ['am53c974', '5.2', '11.1', 'breaks'],
    ['am53c974', '11.1', '5.2', 'breaks'],
    ['am53c974', '11.1', '10.0', 'breaks'],
    ['am53c974', '10.0', '11.1', 'fine'],
    ['pvscsi', '10.0', '11.1', 'fine'],
    ['pvscsi', '11.1', '10.0', 'fine'],
    ['pcie-root-port', '10.0', '11.1', 'fine'],
    ['pcie-root-port', '5.2', '7.2', 'fine'],
    ['sd-card', '7.2', '10.0', 'fine'],
    ['sd-card', '5.2', '11.1', 'fine'],
  ])('%s from %s to %s: %s', (type, source, dest, verdict) => {
    const only = (name: string): boolean => name === type;
    const findings = checkDumps(dumps.get(source)!, dumps.get(dest)!, { only });
    expect(findings[0]?.verdict ?? 'fine').toBe(verdict);
  });
});

/** Description names of what the recorded machines hold. */
function sectionNames(names: readonly string[]): Set<string> {
  return new Set(
    names.flatMap((name) =>
      (factsOf('11.1', name).vmdesc?.devices ?? []).map((d) => d.vmsd_name ?? d.name),
    ),
  );
}

describe('pairs of releases', () => {
  const held = sectionNames(['precopy-devices', 'host-devices', 'zoo-q35', 'zoo-pc']);
  test.each(pairs)('from %s to %s nothing breaks that the recorded machines hold', (a, b) => {
    const source = dumps.get(a)!;
    // Types that no such machine has share the name vga: those of other buses.
    const only = (name: string): boolean =>
      name !== 'isa-vga' && held.has(source.types.get(name)?.description?.name ?? '');
    const findings = checkDumps(source, dumps.get(b)!, { only });
    expect(findings.filter(({ verdict }) => verdict === 'breaks')).toEqual([]);
  });

  test('make a matrix that says what breaks', () => {
    const { pairs: checked } = checkMatrix(dumps, 'pc-q35-5.2');
    const broken = checked.find(({ source, dest }) => source === '10.0' && dest === '11.1')!;
    const types = broken.findings.filter((f) => f.verdict === 'breaks').map(({ path }) => path[0]);
    expect(types).toEqual(['nvme', 'isa-vga']);
  });
});

/** Streams of x86 machines that every release knows: all of them load in every release. */
const streams = ['precopy', 'precopy-devices', 'host-devices', 'xbzrle', 'zoo-q35', 'zoo-pc'];

describe.each(listFixtures().filter(({ case: name }) => streams.includes(name)))(
  'the stream $release/$case',
  ({ release, case: name }) => {
    const facts = factsOf(release, name);

    test.each(releases)('loads in %s', (dest) => {
      const dump = { ...dumps.get(dest)!, machine: facts.machine! };
      const findings = checkStream(facts, { dump }).filter(({ verdict }) => verdict !== 'fine');
      // Since 8.1 an e1000e sends zeros where releases before it read a pending interrupt.
      const reused = findings.filter(({ rule }) => rule !== 'UNUSED_REUSED');
      expect(reused).toEqual([]);
      for (const { path } of findings) expect(path[0]).toMatch(/\/e1000e$/);
    });
  },
);

describe('what a stream shows that a dump does not', () => {
  test('the subsections that a newer machine type sends break at an older release', () => {
    const facts = factsOf('11.1', 'early-setup');
    const dump = { ...dumps.get('5.2')!, machine: facts.machine! };
    const broken = checkStream(facts, { dump }).filter(({ verdict }) => verdict === 'breaks');
    expect(broken.map(({ rule, path }) => [rule, path.at(-1)])).toEqual([
      ['SUBSECTION_UNKNOWN', 'ich9_pm/pcihp'],
      ['SUBSECTION_UNKNOWN', 'pckbd/extended_state'],
    ]);
  });

  test('an nvme that 11.1 migrates is refused by the releases that block it', () => {
    for (const release of ['5.2', '7.2', '10.0'] as const) {
      const [first] = checkStream(factsOf('11.1', 'nvme'), { dump: dumps.get(release)! });
      expect(first).toMatchObject({ verdict: 'breaks', rule: 'VERSION_TOO_NEW' });
    }
  });
});
