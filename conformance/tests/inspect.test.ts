import { decodeDevices, type PageCounts, type StreamModel } from '@wherry/snapshot';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';
import { releases } from '../peers/peers.ts';
import { walkStream } from '../walk-stream.ts';

/** Without footers and without vmdesc. */
const refused: Readonly<Record<string, string>> = { 'machine-2.2': 'no footers' };
const fixtures = listFixtures();

describe.each(fixtures.filter((fixture) => !(fixture.case in refused)))(
  'the stream $release/$case',
  ({ release, case: name }) => {
    const { stream, meta } = loadFixture(release, name);
    const model = walkStream(stream);
    const isPostcopy = name.startsWith('postcopy');
    const isRecovery = name === 'recovery';
    const hasVmdesc = !isPostcopy && !isRecovery && name !== 'no-vmdesc';

    test('ends where it ends', () => {
      expect(model).toMatchObject({ endOffset: stream.length, trailingBytes: 0, omittedItems: 0 });
      expect(model.configuration?.machineType).toBe(
        isRecovery || name === 'no-configuration' ? undefined : meta.machine,
      );
      const validated = ['x-ignore-shared', 'mapped-ram'];
      const capabilities = meta.capabilities.filter((capability) => validated.includes(capability));
      expect(model.configuration?.capabilities ?? []).toEqual(capabilities);
      expect(model.vmdesc !== undefined).toBe(hasVmdesc);
    });

    test('holds the pages that QEMU counted', () => {
      const { blocks = [], totalBytes = 0 } = model.ram ?? {};
      const sum = (kind: keyof PageCounts): number =>
        blocks.reduce((total, { pages }) => total + pages[kind], 0);
      const { normal = 0, duplicate = 0, total } = meta.ram;
      // QEMU counts shared blocks out, though the list has them.
      if (name !== 'ignore-shared' && !isRecovery) expect(totalBytes).toBe(total);
      expect(sum('xbzrle') > 0).toBe(name === 'xbzrle');
      expect(sum('compress') > 0).toBe(name === 'compress');
      switch (name) {
        case 'compress':
          // QEMU counts some compressed pages as zero pages, too; each page was sent once.
          expect(sum('page')).toBe(normal);
          expect(sum('page') + sum('compress') + sum('zero')).toBe(totalBytes / 4096);
          break;
        case 'mapped-ram':
        case 'mapped-ram-offset':
          expect(sum('mapped')).toBe(normal);
          expect(sum('page') + sum('zero')).toBe(0);
          break;
        case 'multifd':
          expect(sum('page')).toBe(0); // they went over the channels
          expect(sum('zero')).toBe(duplicate);
          break;
        case 'recovery':
          // The rest went over the connection that broke.
          expect(sum('page')).toBeGreaterThan(0);
          expect(sum('page')).toBeLessThan(normal);
          expect(sum('zero')).toBeLessThan(duplicate);
          break;
        default:
          expect(sum('page')).toBe(normal);
          expect(sum('zero')).toBe(duplicate);
      }
    });

    test('is described by its own vmdesc, section by section', () => {
      const devices = [...decodeDevices(model)];
      if (isRecovery) {
        expect(devices).toEqual([]); // they went with the package
        return;
      }
      const isPc = meta.machine.startsWith('pc-');
      expect(devices.length).toBeGreaterThan(isPc ? 20 : 12);
      if (!hasVmdesc) {
        const why = isPostcopy ? 'postcopy' : 'no vmdesc';
        expect(devices.every(({ note }) => note?.includes(why))).toBe(true);
        return;
      }
      const undecoded = devices.filter(({ state }) => state === undefined);
      expect(undecoded.map(({ device }) => device.idstr)).toEqual([]);
      // Each section's nodes lie one behind the other and fill it; so the vmdesc fits to the byte.
      for (const { device, state } of devices) {
        if (state === undefined) continue;
        let at = device.bodyOffset;
        for (const node of state) {
          expect(node.offset).toBe(at);
          at += node.lengthBytes;
        }
        expect(at).toBe(device.bodyOffset + device.bodyLengthBytes);
      }
    });

    test('has its commands in the order of its kind', () => {
      const commands = model.items.flatMap((item) =>
        item.type === 'command' ? [`${item.packaged ? '> ' : ''}${item.command.name}`] : [],
      );
      const deduplicated = commands.filter((command, i) => command !== commands[i - 1]);
      expect(deduplicated).toEqual(commandsOf(name, meta.machine, release));
    });
  },
);

function commandsOf(name: string, machine: string, release: string): string[] {
  if (name === 'recovery') return ['recv-bitmap', 'postcopy-resume'];
  if (name === 'dirty-bitmaps') return ['postcopy-advise'];
  if (!name.startsWith('postcopy')) {
    // Of machine types of 10.0 and later; microvm has no versions, only what its release has.
    const isNew = machine === 'pc-q35-10.0' || (machine === 'microvm' && Number(release) >= 10);
    return isNew ? ['switchover-start'] : [];
  }
  return [
    'open-return-path',
    'ping',
    'postcopy-advise',
    'postcopy-ram-discard',
    'ping',
    'packaged',
    '> postcopy-listen',
    '> ping',
    '> postcopy-run',
    'ping',
  ];
}

describe.each(fixtures.filter((fixture) => fixture.case in refused))(
  'the stream $release/$case',
  ({ release, case: name }) => {
    test('is refused, and the reason is said', () => {
      expect(() => walkStream(loadFixture(release, name).stream)).toThrow(refused[name]);
    });
  },
);

describe.each(releases)('of QEMU %s', (release) => {
  const model = (name: string): StreamModel => walkStream(loadFixture(release, name).stream);

  test.each(['dirty-bitmaps', 'postcopy-bitmaps'])('%s holds the bits that were set', (name) => {
    const of = { node: 'disk0', persistent: false, isComplete: true, coveredBytes: 64 << 20 };
    expect(model(name).dirtyBitmaps).toMatchObject([
      { ...of, name: 'empty', granularityBytes: 65_536, enabled: false, setBits: 0 },
      { ...of, name: 'fine', granularityBytes: 4096, enabled: true, setBits: 51 },
      { ...of, name: 'coarse', granularityBytes: 65_536, enabled: true, setBits: 5 },
    ]);
  });

  test('the live sections are those of the machine', () => {
    const idstrs = listFixtures()
      .filter((fixture) => fixture.release === release && !(fixture.case in refused))
      .map(({ case: name }) => [name, model(name).liveSections?.map(({ idstr }) => idstr)])
      .filter(([, sections]) => sections?.length !== 0);
    const isIn = (known: string): boolean =>
      fixtures.some((fixture) => fixture.release === release && fixture.case === known);
    expect(Object.fromEntries(idstrs)).toEqual({
      ...(isIn('block') ? { block: ['block'] } : {}),
      'dirty-bitmaps': ['dirty-bitmap'],
      'postcopy-bitmaps': ['dirty-bitmap'],
      ...(isIn('ppc64') ? { ppc64: ['spapr/htab'] } : {}),
      ...(isIn('s390x') ? { s390x: ['s390-storage_attributes'] } : {}),
    });
  });
});

test.each(fixtures.filter((fixture) => fixture.case === 'ppc64'))(
  'the hash table of $release/$case has the entry that its guest made',
  ({ release, case: name }) => {
    const [table] = walkStream(loadFixture(release, name).stream).liveSections;
    expect(table?.summary).toEqual({
      'size in bits': 21,
      'valid entries': 1,
      'invalid entries': 0,
    });
  },
);

test.each(fixtures.filter((fixture) => fixture.case === 's390x'))(
  'the storage keys of $release/$case are those of its guest',
  ({ release, case: name }) => {
    const devices = decodeDevices(walkStream(loadFixture(release, name).stream));
    const { state } = [...devices].find(({ device }) => device.idstr === 's390-skeys')!;
    const keys = state?.find((node) => node.name === 'keys')?.value as Uint8Array;
    expect(keys.length).toBe(4096);
    expect(keys[2]).toBe(0x30);
  },
);
