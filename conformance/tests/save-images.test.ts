import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { ByteReader, runParser } from '@wherry/bytes';
import { StreamWalk } from '@wherry/snapshot';
import { describe, expect, test } from 'vitest';
import { loadSaveImages } from '../fixtures.ts';

const HEADER_BYTES = 92;

describe.each(loadSaveImages())('what libvirt saved as $meta.format', ({ meta, image }) => {
  const header = new DataView(image.buffer, image.byteOffset, HEADER_BYTES);
  const [version, dataBytes, wasRunning, compression, cookieOffset] = [16, 20, 24, 28, 32].map(
    (offset) => header.getUint32(offset, true),
  );
  const text = Buffer.from(image).toString('latin1', HEADER_BYTES, HEADER_BYTES + dataBytes!);
  const packed = image.subarray(HEADER_BYTES + dataBytes!);

  test('is the file that was recorded', () => {
    expect(image.length).toBe(meta.lengthBytes);
    expect(createHash('sha256').update(image).digest('hex')).toBe(meta.sha256);
  });

  test('has the header, the domain and the cookie where they are described', () => {
    expect(Buffer.from(image).toString('latin1', 0, 16)).toBe('LibvirtQemudSave');
    expect([version, wasRunning]).toEqual([2, 1]);
    expect(compression).toBe(['raw', 'gzip', 'bzip2', 'xz'].indexOf(meta.format));
    expect(text.slice(0, 20)).toBe("<domain type='qemu'>");
    expect(text.slice(cookieOffset! - 1, cookieOffset! + 8)).toBe('\0<cookie>');
  });

  test.runIf(['raw', 'gzip'].includes(meta.format))('holds a whole stream', () => {
    const stream = meta.format === 'gzip' ? new Uint8Array(gunzipSync(packed)) : packed;
    const streamWalk = new StreamWalk();
    const reader = ByteReader.over(stream);
    runParser(streamWalk.walk(reader), reader);
    expect(streamWalk.model.configuration?.machineType).toBe(meta.machine);
    expect(streamWalk.model).toMatchObject({ endOffset: stream.length, trailingBytes: 0 });
  });
});
