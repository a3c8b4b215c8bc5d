import { describe, expect, it } from 'vitest';
import { parseDump } from './dump.ts';

const base = {
  vmschkmachine: { Name: 'pc-q35-5.2' },
  'isa-parallel': {
    Name: 'isa-parallel',
    version_id: 1,
    minimum_version_id: 1,
    Description: {
      name: 'parallel_isa',
      version_id: 1,
      minimum_version_id: 1,
      Fields: [
        { field: 'pins', version_id: 0, field_exists: false, num: 3, size: 2 },
        {
          field: 'state',
          version_id: 1,
          field_exists: true,
          size: 40,
          Description: { name: 'parallel', version_id: 2, minimum_version_id: 1 },
        },
      ],
      Subsections: [{ name: 'parallel_isa/irq', version_id: 1, minimum_version_id: 1, Fields: [] }],
    },
  },
  plain: { Name: 'plain', version_id: 0, minimum_version_id: 0 },
};

/** A copy with one member set; `undefined` removes it. */
function changed(path: readonly (string | number)[], value: unknown): string {
  const copy = structuredClone(base) as unknown as Record<string, unknown>;
  let at: Record<string | number, unknown> = copy;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
  at[path.at(-1)!] = value;
  return JSON.stringify(copy);
}

describe('parseDump', () => {
  it('reads the machine and its types', () => {
    const dump = parseDump(JSON.stringify(base));
    expect(dump.machine).toBe('pc-q35-5.2');
    expect([...dump.types.keys()]).toEqual(['isa-parallel', 'plain']);
    expect(dump.types.get('plain')).toEqual({ name: 'plain', versionId: 0, minimumVersionId: 0 });
    expect(dump.types.get('isa-parallel')?.description).toEqual({
      name: 'parallel_isa',
      versionId: 1,
      minimumVersionId: 1,
      fields: [
        { field: 'pins', versionId: 0, fieldExists: false, num: 3, size: 2 },
        {
          field: 'state',
          versionId: 1,
          fieldExists: true,
          size: 40,
          description: {
            name: 'parallel',
            versionId: 2,
            minimumVersionId: 1,
            fields: [],
            subsections: [],
          },
        },
      ],
      subsections: [
        {
          name: 'parallel_isa/irq',
          versionId: 1,
          minimumVersionId: 1,
          fields: [],
          subsections: [],
        },
      ],
    });
  });

  const fields = ['isa-parallel', 'Description', 'Fields'];
  it.each([
    ['no JSON', 'QEVM', 'JSON'],
    ['an array', '[]', 'an object'],
    ['no machine', '{}', 'an object'],
    ['a type that is no object', changed(['plain'], 3), 'an object'],
    ['a type without a version', changed(['plain', 'version_id'], undefined), "'version_id'"],
    ['fields that are no list', changed(fields, {}), "an array 'Fields'"],
    ['a field without a name', changed([...fields, 0, 'field'], 7), "a string 'field'"],
    ['a negative size', changed([...fields, 0, 'size'], -1), "'size' of at least 0"],
    ['a fraction', changed([...fields, 0, 'num'], 1.5), "'num'"],
    ['no condition', changed([...fields, 1, 'field_exists'], 'no'), "'field_exists'"],
  ])('refuses %s', (_what, text, expected) => {
    expect(() => parseDump(text)).toThrow(
      expect.objectContaining({
        code: 'DUMP_INVALID',
        expected: expect.stringContaining(expected),
      }),
    );
  });

  it('refuses descriptions nested without end', () => {
    let description: object = { name: 'x', version_id: 1, minimum_version_id: 1 };
    for (let i = 0; i < 40; i++) {
      description = {
        ...{ name: 'x', version_id: 1, minimum_version_id: 1 },
        Fields: [
          { field: 'f', version_id: 0, field_exists: false, size: 1, Description: description },
        ],
      };
    }
    expect(() => parseDump(changed(['plain', 'Description'], description))).toThrow(/nested/);
  });
});
