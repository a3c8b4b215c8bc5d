import { ByteReader, runParser } from '@wherry/bytes';
import { findVmdesc, locate, StreamWalk } from '@wherry/snapshot';
import { expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';

const SAMPLES = 20;

test.each(listFixtures().filter(({ release }) => release === '11.1'))(
  'of bytes all over $release/$case it is said what they are',
  ({ release, case: name }) => {
    const { stream } = loadFixture(release, name);
    const vmdesc = name === 'no-footers' ? findVmdesc(stream, 0) : undefined;
    for (let i = 0; i < SAMPLES; i++) {
      const at = Math.floor(((i + 0.5) * stream.length) / SAMPLES);
      const { model } = walkTo(stream, { at, vmdesc });
      const { range, path } = locate(model) ?? {};
      expect(range, `${at}`).toBeDefined();
      expect(range!.offset).toBeLessThanOrEqual(at);
      expect(range!.offset + range!.lengthBytes).toBeGreaterThan(at);
      const device = model.devices.find(
        ({ bodyOffset, bodyLengthBytes }) => at >= bodyOffset && at < bodyOffset + bodyLengthBytes,
      );
      // Of a device's state the field is named, unless the stream does not describe it.
      if (device !== undefined && model.vmdesc !== undefined) {
        expect(path!.length, `${at}`).toBeGreaterThan(1);
      }
    }
  },
);

function walkTo(
  stream: Uint8Array,
  options: ConstructorParameters<typeof StreamWalk>[0],
): StreamWalk {
  const walk = new StreamWalk(options);
  const reader = ByteReader.over(stream);
  runParser(walk.walkFile(reader), reader);
  return walk;
}
