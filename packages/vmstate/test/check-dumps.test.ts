import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addKnown, builtInKnown, checkDumps, checkMatrix, parseDump } from '../src/index.ts';

/** A field, description and type as `-dump-vmstate` writes them. */
interface RawField {
  field: string;
  version_id: number;
  field_exists: boolean;
  num?: number;
  size: number;
  Description?: RawDescription;
}
interface RawDescription {
  name: string;
  version_id: number;
  minimum_version_id: number;
  Fields?: RawField[];
  Subsections?: RawDescription[];
}
interface RawType {
  Name: string;
  version_id: number;
  minimum_version_id: number;
  Description?: RawDescription;
}
type RawDump = { vmschkmachine: { Name: string } } & Record<string, RawType>;

const f = (field: string, size: number, more: Partial<RawField> = {}): RawField => ({
  field,
  version_id: 0,
  field_exists: false,
  size,
  ...more,
});
const table = (
  name: string,
  Fields: RawField[],
  more: Partial<RawDescription> = {},
): RawDescription => ({ name, version_id: 2, minimum_version_id: 1, Fields, ...more });
const type = (Name: string, Description: RawDescription): RawType => ({
  Name,
  version_id: Description.version_id,
  minimum_version_id: Description.minimum_version_id,
  Description,
});
const dumpOf = (types: readonly RawType[], machine = 'pc-q35-6.2'): RawDump =>
  ({
    vmschkmachine: { Name: machine },
    ...Object.fromEntries(types.map((t) => [t.Name, t])),
  }) as RawDump;

/** A machine of our own: a device for each sort of difference. */
function base(): RawDump {
  const header = (): RawDescription =>
    table('BusHeader', [f('revision', 4), f('space', 256), f('lines', 16, { num: 4 })]);
  const wheel = table('wheel', [f('angle', 8), f('speed', 4), f('brake', 1), f('gear', 1)], {
    Subsections: [table('wheel/slip', [f('slip', 4)])],
  });
  return dumpOf([
    type('lamp', table('lamp', [f('level', 1), f('colour', 4)])),
    type('clock', table('clock', [f('ticks', 8), f('alarm', 8), f('rate', 4), f('mode', 1)])),
    type('meter', table('meter', [f('bus', 900, { Description: header() }), f('value', 4)])),
    type('pump', table('pump', [f('bus', 900, { Description: header() }), f('flow', 4)])),
    type('door', table('door', [f('angle', 4), f('locked', 1)])),
    type('valve', table('valve', [f('open', 1)])),
    type('cart', table('cart', [f('load', 4), f('wheels', 64, { num: 4, Description: wheel })])),
    type(
      'crane',
      table('crane', [f('height', 4)], { Subsections: [table('crane/wind', [f('w', 2)])] }),
    ),
    type('bell', table('bell', [f('tone', 2)])),
    type('panel', table('panel', [f('keys', 4), f('head', 4), f('count', 4), f('leds', 1)])),
  ]);
}

function planted(change: (dump: RawDump) => unknown): RawDump {
  const dump = base();
  change(dump);
  return dump;
}

const check = (source: RawDump, dest: RawDump, options: Parameters<typeof checkDumps>[2] = {}) =>
  checkDumps(parseDump(JSON.stringify(source)), parseDump(JSON.stringify(dest)), options);
const brief = (source: RawDump, dest: RawDump, options: Parameters<typeof checkDumps>[2] = {}) =>
  check(source, dest, options).map(({ verdict, rule, path }) => [verdict, rule, path.join('/')]);

describe('the sorts of differences that QEMU’s checker is tested with', () => {
  const sorts: [string, (dump: RawDump) => unknown, string, string][] = [
    ['another machine type', (d) => (d.vmschkmachine.Name = 'pc-q35-7.0'), 'MACHINE_TYPE', ''],
    ['a device that is gone', (d) => delete d['lamp'], 'DEVICE_MISSING', 'lamp'],
    ['a lower version of a type', (d) => (d['clock']!.version_id = 1), 'VERSION_TOO_NEW', 'clock'],
    [
      'a field that is gone from the middle',
      (d) => d['clock']!.Description!.Fields!.splice(1, 1),
      'FIELD_MISSING',
      'clock/clock/alarm',
    ],
    [
      'a description without its fields',
      (d) => delete d['door']!.Description!.Fields,
      'DESCRIPTION_MISSING',
      'door',
    ],
    [
      'a nested state that became a plain value',
      (d) => delete d['pump']!.Description!.Fields![0]!.Description,
      'FIELD_KIND',
      'pump/pump/bus',
    ],
    [
      'a type without its description',
      (d) => delete d['valve']!.Description,
      'DESCRIPTION_MISSING',
      'valve',
    ],
    [
      'a nested field that is gone from the end',
      (d) => d['meter']!.Description!.Fields![0]!.Description!.Fields!.pop(),
      'FIELD_MISSING',
      'meter/meter/bus/BusHeader/lines',
    ],
    [
      'a higher minimum version',
      (d) => {
        Object.assign(d['crane']!.Description!, { version_id: 4, minimum_version_id: 3 });
      },
      'VERSION_TOO_OLD',
      'crane/crane',
    ],
    [
      'a list of subsections that is gone',
      (d) => delete d['crane']!.Description!.Subsections,
      'SUBSECTION_UNKNOWN',
      'crane/crane/crane/wind',
    ],
    [
      'another name of a description',
      (d) => (d['bell']!.Description!.name = 'gong'),
      'SECTION_RENAMED',
      'bell',
    ],
    [
      'a lower version of a nested description',
      (d) => {
        Object.assign(d['cart']!.Description!.Fields![1]!.Description!, {
          version_id: 1,
          minimum_version_id: 1,
        });
      },
      'NESTED_VERSION',
      'cart/cart/wheels/wheel',
    ],
    [
      'a nested subsection that is gone',
      (d) => delete d['cart']!.Description!.Fields![1]!.Description!.Subsections,
      'SUBSECTION_UNKNOWN',
      'cart/cart/wheels/wheel/wheel/slip',
    ],
    [
      'fields that moved into a nested state, one of them with another size',
      (d) => {
        const fields = d['panel']!.Description!.Fields!;
        fields[0]!.size = 2;
        d['panel']!.Description!.Fields = [f('state', 312, { Description: table('keys', fields) })];
      },
      'FIELD_SIZE',
      'panel/panel/keys',
    ],
  ];

  it.each(sorts)('finds %s, once', (_sort, change, rule, path) => {
    const findings = check(base(), planted(change));
    expect(findings.map((found) => [found.rule, found.path.join('/')])).toEqual([[rule, path]]);
    expect(findings[0]!.verdict).not.toBe('fine');
  });

  it('finds all fourteen at once', () => {
    const all = base();
    for (const [, change] of sorts) change(all);
    expect(check(base(), all).map(({ rule }) => rule)).toHaveLength(14);
  });

  it('finds nothing between equal dumps', () => {
    expect(check(base(), base())).toEqual([]);
  });
});

describe('fields', () => {
  const device = (fields: RawField[], more: Partial<RawDescription> = {}): RawDump =>
    dumpOf([type('x', table('x', fields, more))]);

  it('are read by the version that comes', () => {
    const grown = device([f('a', 4), f('b', 4, { version_id: 3 })], { version_id: 3 });
    expect(brief(device([f('a', 4)]), grown)).toEqual([]);
    expect(brief(grown, device([f('a', 4)]))).toEqual([
      ['breaks', 'VERSION_TOO_NEW', 'x'],
      ['breaks', 'FIELD_MISSING', 'x/x/b'],
    ]);
  });

  it('that are nested are read by the reader’s version: nothing tells it the sender’s', () => {
    const nest = (fields: RawField[], version_id: number): RawDump =>
      device([f('n', 99, { Description: table('n', fields, { version_id }) })]);
    const grown = nest([f('a', 4), f('b', 4, { version_id: 3 })], 3);
    expect(brief(nest([f('a', 4)], 2), grown)).toEqual([['breaks', 'FIELD_EXTRA', 'x/x/n/n/b']]);
  });

  it('that stand under a condition may break', () => {
    const conditional = device([f('a', 4), f('b', 4, { field_exists: true })]);
    expect(brief(conditional, device([f('a', 4)]))).toEqual([
      ['may-break', 'FIELD_MISSING', 'x/x/b'],
    ]);
    expect(brief(conditional, device([f('a', 4), f('b', 4)]))).toEqual([
      ['may-break', 'FIELD_CONDITION', 'x/x/b'],
    ]);
  });

  it('of arrays are compared by number where both dumps tell it', () => {
    expect(brief(device([f('a', 4, { num: 4 })]), device([f('a', 4, { num: 5 })]))).toEqual([
      ['breaks', 'ARRAY_LENGTH', 'x/x/a'],
    ]);
    expect(brief(device([f('a', 4)]), device([f('a', 4, { num: 5 })]))).toEqual([]);
  });

  it('with another name and the same bytes may be a rename, and are one that is stated', () => {
    const [a, b] = [device([f('p', 1), f('old', 4)]), device([f('p', 1), f('new', 4)])];
    expect(brief(a, b)).toEqual([['may-break', 'FIELD_REPLACED', 'x/x/new']]);
    const entry = { description: 'x', names: ['old', 'new'], between: ['6.1', '6.2'], why: 'same' };
    const known = addKnown(builtInKnown(), JSON.stringify({ fields: [entry] }));
    expect(brief(a, b, { known })).toEqual([['fine', 'FIELD_RENAMED', 'x/x/new']]);
  });

  it('that moved within their owner keep their own name', () => {
    const moved = device([f('p', 1), f('core.regs.mode', 4)]);
    expect(brief(device([f('p', 1), f('mode', 4)]), moved)).toEqual([
      ['fine', 'FIELD_RENAMED', 'x/x/core.regs.mode'],
    ]);
  });

  it('that were split fill the same bytes', () => {
    const split = device([f('lo', 2), f('hi', 2), f('end', 1)]);
    expect(brief(device([f('word', 4), f('end', 1)]), split)).toEqual([
      ['may-break', 'FIELD_REPLACED', 'x/x/lo, hi'],
    ]);
    const shorter = device([f('word', 2), f('rest', 2), f('end', 1)]);
    expect(brief(device([f('word', 4), f('end', 1)]), shorter)).toEqual([
      ['may-break', 'FIELD_REPLACED', 'x/x/word, rest'],
    ]);
  });

  it('are left alone where two lists are too long and too different', () => {
    const many = (letter: string): RawField[] =>
      Array.from({ length: 3000 }, (_, i) => f(`${letter}${i}`, 3));
    expect(brief(device(many('a')), device(many('b')))).toEqual([
      ['cannot-tell', 'TOO_DIFFERENT', 'x/x'],
    ]);
    const grown = many('a').toSpliced(1500, 0, f('INSERTED', 4));
    expect(brief(device(many('a')), device(grown))).toEqual([
      ['breaks', 'FIELD_EXTRA', 'x/x/INSERTED'],
    ]);
  });

  it('that are unused find those under the same condition', () => {
    const a = device([f('unused', 4, { field_exists: true }), f('unused', 4), f('z', 1)]);
    expect(brief(device([f('unused', 4), f('z', 1)]), a)).toEqual([
      ['may-break', 'FIELD_EXTRA', 'x/x/unused'],
    ]);
  });

  const someFields = fc.uniqueArray(
    fc.record({
      field: fc.stringMatching(/^[a-z]{1,6}$/),
      size: fc.constantFrom(1, 2, 4, 8),
      nested: fc.boolean(),
    }),
    { selector: ({ field }) => field, minLength: 2, maxLength: 30 },
  );
  it('give one finding for one that was inserted, removed or resized', () => {
    fc.assert(
      fc.property(someFields, fc.nat(), fc.constantFrom('insert', 'resize'), (list, at, change) => {
        const fields = (): RawField[] =>
          list.map(({ field, size, nested }) =>
            f(field, size, nested ? { Description: table(`${field}s`, [f('v', size)]) } : {}),
          );
        const changed = fields();
        const place = at % changed.length;
        if (change === 'insert') changed.splice(place, 0, f('INSERTED', 4));
        else changed[place] = f(changed[place]!.field, 16);
        for (const [a, b] of [
          [fields(), changed],
          [changed, fields()],
        ]) {
          expect(check(device(a!), device(b!))).toHaveLength(1);
        }
      }),
    );
  });
});

describe('bytes that were unused', () => {
  const freed = dumpOf([type('x', table('x', [f('a', 4), f('unused', 4), f('z', 1)]))]);
  const reused = dumpOf([type('x', table('x', [f('a', 4), f('new', 4), f('z', 1)]))]);
  const first = dumpOf([type('x', table('x', [f('a', 4), f('old', 4), f('z', 1)]))]);

  it('are passed over by the reader', () => {
    expect(brief(first, freed)).toEqual([['fine', 'UNUSED_DROPPED', 'x/x/old']]);
  });

  it('may break when a field is laid over them, and name who sends something there', () => {
    const history = new Map(
      Object.entries({ '6.0': first, '6.1': freed, '6.2': reused }).map(
        ([release, dump]) => [release, parseDump(JSON.stringify(dump))] as const,
      ),
    );
    const [found] = check(freed, reused, { history });
    expect(found).toMatchObject({ verdict: 'may-break', rule: 'UNUSED_REUSED' });
    expect(found!.why).toContain('6.0 (old)');
  });

  it.each([
    [5, 'may-break'],
    [6, 'fine'],
  ])('pass when they are stated to be unused for %i years: %s', (unusedAgeYears, verdict) => {
    expect(brief(freed, reused, { unusedAgeYears })).toEqual([
      [verdict, 'UNUSED_REUSED', 'x/x/new'],
    ]);
  });

  it.each([
    ['the last sender is of 2016', { lastSentBy: '2.8' }, '2023-01-01', 'fine'],
    ['the last sender is five years old', { lastSentBy: '6.2' }, '2027-11-30', 'may-break'],
    ['the last sender is six years old', { lastSentBy: '6.2' }, '2027-12-01', 'fine'],
    ['the load survives a zero', { survivesZero: 'zero means off' }, '2022-01-01', 'fine'],
  ])('are judged by what is stated: %s', (_what, statement, today, verdict) => {
    const entry = { description: 'x', field: 'new', ...statement };
    const known = addKnown(builtInKnown(), JSON.stringify({ unused: [entry] }));
    expect(brief(freed, reused, { known, today })).toEqual([[verdict, 'UNUSED_REUSED', 'x/x/new']]);
  });

  it('cover several fields, and part of the bytes', () => {
    const several = dumpOf([
      type('x', table('x', [f('a', 4), f('unused', 2), f('n', 2), f('z', 1)])),
    ]);
    expect(brief(freed, several)).toEqual([['may-break', 'UNUSED_REUSED', 'x/x/unused, n']]);
  });
});

describe('subsections and conditions that are known', () => {
  const pckbd = (subsections: RawDescription[], machine: string): RawDump =>
    dumpOf([type('i8042', table('pckbd', [f('mode', 1)], { Subsections: subsections }))], machine);
  const extended = table('pckbd/extended_state', [f('flags', 4)]);

  it('are not sent by the machine types that turn them off', () => {
    expect(brief(pckbd([extended], 'pc-q35-5.2'), pckbd([], 'pc-q35-5.2'))).toEqual([]);
    expect(brief(pckbd([extended], 'pc-q35-6.1'), pckbd([], 'pc-q35-6.1'))).toEqual([
      ['may-break', 'SUBSECTION_UNKNOWN', 'i8042/pckbd/pckbd/extended_state'],
    ]);
  });

  it('break nothing for sure within a subsection: it is not always sent', () => {
    const wider = table('pckbd/extended_state', [f('flags', 8)]);
    expect(brief(pckbd([extended], 'pc-q35-7.0'), pckbd([wider], 'pc-q35-7.0'))).toEqual([
      ['may-break', 'FIELD_SIZE', 'i8042/pckbd/pckbd/extended_state/flags'],
    ]);
  });
});

describe('addKnown', () => {
  it.each([
    ['no JSON', '{', 'JSON'],
    ['a list', '[]', 'an object'],
    ['an unknown member', '{"renames":[]}', 'one of releases'],
    ['no list', '{"fields":{}}', 'an array'],
    ['an entry without a reason', '{"types":[{"names":["a"],"between":[]}]}', "a member 'why'"],
    ['a wrong type', '{"unused":[{"description":"x","field":3}]}', 'docs/check.md'],
    ['a day for a month', '{"releases":{"9.9":"2030-01-01"}}', 'YYYY-MM'],
  ])('refuses %s', (_what, text, expected) => {
    expect(() => addKnown(builtInKnown(), text)).toThrow(
      expect.objectContaining({
        code: 'KNOWN_INVALID',
        expected: expect.stringContaining(expected),
      }),
    );
  });
});

describe('checkMatrix', () => {
  it('checks each ordered pair, and knows where a machine type is missing', () => {
    const dumps = new Map(
      ['10.0', '5.2', '7.2'].map((release) => {
        const fields = [f('a', 4), ...(release === '10.0' ? [f('b', 4)] : [])];
        const text = JSON.stringify(dumpOf([type('x', table('x', fields))]));
        return [release, parseDump(text)] as const;
      }),
    );
    const matrix = checkMatrix(dumps, 'pc-q35-6.2');
    expect(matrix.releases).toEqual(['5.2', '7.2', '10.0']);
    expect(matrix.pairs.map(({ source, dest, verdict }) => [source, dest, verdict])).toEqual([
      ['5.2', '7.2', 'absent'],
      ['5.2', '10.0', 'absent'],
      ['7.2', '5.2', 'absent'],
      ['7.2', '10.0', 'breaks'],
      ['10.0', '5.2', 'absent'],
      ['10.0', '7.2', 'breaks'],
    ]);
  });
});
