import { ByteReader, ByteWriter } from '@wherry/bytes';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { formatVmdesc, parseVmdesc, VMDESC_STYLES, VmstateError } from '../src/index.ts';
import { described } from './arbitrary-description.ts';

const cuts = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 });

it('any description and state round-trip, whole and in chunks cut anywhere', () => {
  fc.assert(
    fc.property(described, cuts, ({ description, state, base }, sizes) => {
      const before = structuredClone(base);
      const wire = description.encode(state);
      expect(description.decode(wire, base)).toEqual(state);

      const reader = new ByteReader();
      const parser = description.load(reader, base);
      const more = new ByteWriter().raw(wire).u8(0x7e).u32(9).finish();
      let step = parser.next();
      for (let at = 0, i = 0; !step.done; i++) {
        reader.push(more.subarray(at, (at += sizes[i % sizes.length] ?? 1)));
        step = parser.next();
      }
      expect(step.value).toEqual(state);
      expect(reader.offset).toBe(wire.length);
      expect(base).toEqual(before);
    }),
    { numRuns: 500 },
  );
});

it('any state that is cut short is refused, or is the whole of a smaller one', () => {
  fc.assert(
    fc.property(described, fc.nat(), ({ description, state, base }, seed) => {
      const wire = description.encode(state);
      fc.pre(wire.length > 0);
      const before = structuredClone(base);
      const cut = wire.subarray(0, seed % wire.length);
      try {
        const smaller = description.decode(cut, base);
        expect(description.subsections.length + wire.indexOf(5)).toBeGreaterThan(0);
        expect(Object.keys(smaller).length).toBeLessThanOrEqual(Object.keys(state).length);
      } catch (error) {
        expect(error).toBeInstanceOf(VmstateError);
        expect((error as VmstateError).path[0]).toBe(description.name);
        expect((error as VmstateError).offset).toBeLessThanOrEqual(cut.length);
      }
      expect(base).toEqual(before);
    }),
    { numRuns: 500 },
  );
});

it('noise is refused or taken, with no bare exception', () => {
  const noise = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(described, noise, ({ description, state, base }, changes) => {
      const wire = description.encode(state);
      fc.pre(wire.length > 0);
      for (const [at, byte] of changes) wire[at % wire.length] = byte;
      try {
        description.decode(wire, base);
      } catch (error) {
        expect(error).toBeInstanceOf(VmstateError);
      }
    }),
    { numRuns: 500 },
  );
});

it('a vmdesc is read as it was written, in the way of every release', () => {
  fc.assert(
    fc.property(described, fc.constantFrom(...VMDESC_STYLES), ({ description, state }, style) => {
      const entry = description.save(new ByteWriter(), state, { style });
      const vmdesc = { page_size: 4096, devices: [{ name: 'd', instance_id: 0, ...entry }] };
      const text = formatVmdesc(vmdesc, style);
      expect(formatVmdesc(parseVmdesc(text), style)).toBe(text);
    }),
  );
});
