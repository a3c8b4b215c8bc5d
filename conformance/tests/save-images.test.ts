import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { loadSaveImages } from '../fixtures.ts';
import { walkStream } from '../walk-stream.ts';

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

  if (meta.format === 'raw') {
    test('is read as a whole', () => {
      const { container, configuration, endOffset } = walkStream(image);
      expect(container).toMatchObject({
        ...{ format: 'libvirt-save', version: 2, compression: 'raw', isPartial: false },
        ...{ wasRunning: true, streamOffset: HEADER_BYTES + dataBytes! },
      });
      expect(container?.xml).toMatch(/^<domain type='qemu'>.*<\/domain>\n$/s);
      expect(container?.cookie).toMatch(/^<cookie>.*<\/cookie>\n$/s);
      expect(configuration?.machineType).toBe(meta.machine);
      expect(endOffset).toBe(image.length);
    });
    return;
  }

  test('is told to be packed, and how', () => {
    expect(() => walkStream(image)).toThrow(`found ${meta.format}`);
  });

  if (meta.format === 'gzip') {
    test('holds a whole stream behind it', () => {
      const stream = new Uint8Array(gunzipSync(packed));
      const model = walkStream(stream);
      expect(model.configuration?.machineType).toBe(meta.machine);
      expect(model).toMatchObject({ endOffset: stream.length, trailingBytes: 0 });
    });
  }
});
