import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { ByteReader, ByteWriter } from '@wherry/bytes';
import { expect, it, describe as suite } from 'vitest';
import { VmstateError } from '../src/index.ts';
import { bytesOf, type Golden, goldens } from './golden-kinds.ts';

const named = goldens.map((golden) => [golden.kind, golden] as const);

function failure(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

function loadByteByByte({ description, base = {} }: Golden, wire: Uint8Array): object {
  const reader = new ByteReader();
  const parser = description.load(reader, base);
  let step = parser.next();
  for (const byte of wire) {
    expect(step.done).toBeFalsy();
    reader.push(Uint8Array.of(byte));
    step = parser.next();
  }
  reader.finish();
  while (!step.done) step = parser.next();
  return step.value;
}

suite.each(named)('%s', (kind, golden) => {
  const { description, state, type, base = {}, wholeAt = [] } = golden;
  const wire = bytesOf(golden);

  it('has these bytes, and this type in the vmdesc', () => {
    const writer = new ByteWriter();
    const style = type === 'ptr-marker' ? '11.1' : '10.0';
    const { fields } = description.save(writer, state, { style });
    expect(Buffer.from(writer.bytes).toString('hex')).toBe(Buffer.from(wire).toString('hex'));
    expect(description.encode(state)).toEqual(wire);
    const last = description.fields.at(-1)?.name;
    const types = fields.filter(({ name }) => name === last).map((f) => f.type);
    expect(type === undefined ? types.length : types.includes(type)).toBe(
      type === undefined ? 0 : true,
    );
  });

  it('loads them to the same state, at once and byte by byte', () => {
    const before = structuredClone(base);
    expect(description.decode(wire, base)).toEqual(state);
    expect(loadByteByByte(golden, wire)).toEqual(state);
    expect(base).toEqual(before);
  });

  it('refuses them cut short anywhere: where, in what, and why; and leaves the base alone', () => {
    const before = structuredClone(base);
    for (let length = 0; length < wire.length; length++) {
      if (wholeAt.includes(length)) continue;
      const cut = wire.subarray(0, length);
      const error = failure(() => description.decode(cut, base, { offset: 1000 }));
      expect(error, `${kind} cut to ${length} bytes`).toBeInstanceOf(VmstateError);
      const { code, offset, path, expected, likely } = error as VmstateError;
      expect(['UNEXPECTED_END', 'TRAILING_BYTES']).toContain(code);
      expect(offset).toBeGreaterThanOrEqual(1000);
      expect(offset).toBeLessThanOrEqual(1000 + length);
      expect(path[0]).toBe('d');
      if (code === 'UNEXPECTED_END' && wholeAt.length === 0) {
        expect(path.length, path.join()).toBeGreaterThan(1);
      }
      expect(expected).toMatch(/\d+ (more )?bytes/);
      expect(likely).toMatch(/\w+/);
      expect(base).toEqual(before);
    }
  });

  it('is on the page of kinds with these bytes', () => {
    const page = readFileSync(new URL('../docs/kinds.md', import.meta.url), 'utf8');
    const rows = page.split('\n').filter((line) => line.startsWith(`| \`${kind}\` |`));
    expect(rows).toHaveLength(1);
    expect(rows[0]).toContain(`\`${golden.hex}\``);
    if (type !== undefined) expect(rows[0]).toContain(`\`${type}\``);
  });
});

it('all are the same where no code may be made of text', () => {
  const script = `
    import assert from 'node:assert/strict';
    import { bytesOf, goldens } from ${JSON.stringify(new URL('golden-kinds.ts', import.meta.url).href)};
    assert.throws(() => new Function(''), EvalError);
    for (const golden of goldens) {
      const { description, state, base = {} } = golden;
      assert.deepEqual(description.encode(state), bytesOf(golden));
      assert.deepEqual(description.decode(bytesOf(golden), base), state);
    }
    console.log(goldens.length);`;
  const flags = ['--disallow-code-generation-from-strings', '--input-type=module', '-e', script];
  const printed = execFileSync(process.execPath, flags, { encoding: 'utf8' });
  expect(Number(printed)).toBe(goldens.length);
});

it('every kind of the package has a golden', async () => {
  const kinds = Object.entries(await import('../src/index.ts')).filter(([, value]) => {
    return typeof value === 'object' && value !== null && 'fixedBytes' in value;
  });
  const covered = new Set(goldens.map(({ kind }) => kind.split(',')[0]));
  expect(kinds.map(([name]) => name).filter((name) => !covered.has(name))).toEqual([]);
});
