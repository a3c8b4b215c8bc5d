import { isDeepStrictEqual } from 'node:util';
import type { DeviceModel } from '@wherry/snapshot';
import {
  decodeWithVmdesc,
  describeState,
  encodeState,
  parseDump,
  type Schema,
  type StateNode,
  schemaFromDump,
  schemaFromVmdesc,
  type Vmdesc,
  type VmdescDevice,
  VmstateError,
} from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadDump, loadFixture } from '../fixtures.ts';
import { walkStream } from '../walk-stream.ts';

/** A section and its entry in the stream's vmdesc. */
interface Section {
  readonly device: DeviceModel & { readonly body: Uint8Array };
  readonly entry: VmdescDevice;
}

interface Recorded {
  readonly devices: readonly DeviceModel[];
  readonly vmdesc?: Vmdesc;
  readonly sections: readonly Section[];
}

function read(release: string, name: string): Recorded {
  const { devices, vmdesc } = walkStream(loadFixture(release, name).stream);
  // The vmdesc lists the FULL sections in the order of the stream.
  const entries = [...(vmdesc?.value?.devices ?? [])];
  const sections = devices.flatMap((device) => {
    const { body } = device;
    const i = entries.findIndex(
      (entry) => entry.name === device.idstr && entry.instance_id === device.instanceId,
    );
    if (i < 0 || body === undefined) return [];
    const [entry] = entries.splice(i, 1);
    return [{ device: { ...device, body }, entry: entry! }];
  });
  return vmdesc?.value === undefined
    ? { devices, sections }
    : { devices, sections, vmdesc: vmdesc.value };
}

// Without footers and without vmdesc, sections end where nobody can tell.
const withoutFooters = ['machine-2.2'];

const hasVmdesc = (name: string): boolean =>
  !name.startsWith('postcopy') && name !== 'no-vmdesc' && name !== 'recovery';

const fixtures = listFixtures().filter((fixture) => !withoutFooters.includes(fixture.case));

describe.each(fixtures.filter(({ case: name }) => hasVmdesc(name)))(
  '$release/$case',
  ({ release, case: name }) => {
    test('each section is described, decoded, written and described again as it was', () => {
      const { devices, sections } = read(release, name);
      expect(sections.length).toBe(devices.length);
      for (const { device, entry } of sections) {
        const nodes = decodeWithVmdesc(entry, device.body, device.bodyOffset);
        expect(Buffer.compare(encodeState(nodes), device.body), device.idstr).toBe(0);
        const described = describeState(entry, nodes);
        if (isDeepStrictEqual(described, entry)) continue;
        // QEMU before 10.0 describes this array of pointers by its first element, which is NULL.
        expect(`${release} ${device.idstr}`).toBe('7.2 s390_css');
        expect(decodeWithVmdesc(described, device.body, device.bodyOffset)).toEqual(nodes);
      }
    });
  },
);

/** Decodes what a schema can, and checks that the same bytes come out again. */
function decodeBy(schema: Schema, device: DeviceModel): readonly StateNode[] | undefined {
  const { body = new Uint8Array(), bodyOffset } = device;
  try {
    const nodes = schema.decode(device, body, bodyOffset);
    expect(Buffer.compare(encodeState(nodes), body), device.idstr).toBe(0);
    return nodes;
  } catch (error) {
    if (!(error instanceof VmstateError)) throw error;
    return undefined;
  }
}

/** Gives where each value begins. */
function boundaries(nodes: readonly StateNode[]): number[] {
  return nodes.flatMap(({ offset, lengthBytes, children }) =>
    children === undefined ? (lengthBytes > 0 ? [offset] : []) : boundaries(children),
  );
}

const releases = [...new Set(fixtures.map(({ release }) => release))];
const isRecorded = (release: string, name: string): boolean =>
  fixtures.some((fixture) => fixture.release === release && fixture.case === name);

/** Finds a stream with a vmdesc from a machine with the same arguments. */
function likeMachine(release: string, name: string): string | undefined {
  const { args } = loadFixture(release, name).meta;
  return fixtures.find(
    (other) =>
      other.release === release &&
      hasVmdesc(other.case) &&
      isDeepStrictEqual(loadFixture(release, other.case).meta.args, args),
  )?.case;
}

describe.each(fixtures.filter(({ case: name }) => name.startsWith('postcopy')))(
  '$release/$case, which has no vmdesc,',
  ({ release, case: name }) => {
    test('is decoded by that of a precopy stream of the same machine, each section', () => {
      const other = likeMachine(release, name);
      expect(other).toBeDefined();
      const { devices } = read(release, name);
      const schema = schemaFromVmdesc(read(release, other!).vmdesc!);
      const undecoded = devices.filter((device) => decodeBy(schema, device) === undefined);
      expect(devices.length).toBeGreaterThanOrEqual(30);
      expect(undecoded.map(({ idstr }) => idstr)).toEqual([]);
    });
  },
);

describe.each(releases.filter((release) => isRecorded(release, 'postcopy')))(
  'without a vmdesc, %s',
  (release) => {
    // Some eight of the sections have no device type, so that no dump describes them; the others that
    // are not decoded have more than one reading.
    const decodedByDump: Readonly<Record<string, Readonly<Record<string, string>>>> = {
      '5.2': { postcopy: '10 of 30', precopy: '10 of 30', 'zoo-q35': '17 of 46' },
      '7.2': { postcopy: '12 of 30', precopy: '12 of 30', 'zoo-q35': '19 of 45' },
      '10.0': { postcopy: '20 of 30', precopy: '20 of 30', 'zoo-q35': '32 of 45' },
      '11.1': { postcopy: '20 of 30', precopy: '20 of 30', 'zoo-q35': '32 of 45' },
    };

    test('a dump decodes sections as the vmdesc does, or not at all', () => {
      const schema = schemaFromDump(parseDump(loadDump(release)));
      const decoded: Record<string, string> = {};
      for (const name of Object.keys(decodedByDump[release] ?? {})) {
        const { devices, sections } = read(release, name);
        let count = 0;
        for (const device of devices) {
          const nodes = decodeBy(schema, device);
          if (nodes === undefined) continue;
          count++;
          const section = sections.find(({ device: { offset } }) => offset === device.offset);
          if (section === undefined) continue;
          const { entry, device: described } = section;
          const byVmdesc = decodeWithVmdesc(entry, described.body, described.bodyOffset);
          const areEqual = isDeepStrictEqual(boundaries(nodes), boundaries(byVmdesc));
          expect(areEqual, device.idstr).toBe(true);
        }
        decoded[name] = `${count} of ${devices.length}`;
      }
      expect(decoded).toEqual(decodedByDump[release]);
    });
  },
);
