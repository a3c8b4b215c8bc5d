import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { ByteWriter } from '@wherry/bytes';
import {
  RamFlag,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamWord,
  writeSectionHead,
  writeVmdesc,
} from '@wherry/stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ByteSource, fileSource, streamSource } from '../src/inspect/byte-source.ts';
import { type Walked, walkSource } from '../src/inspect/walk-source.ts';

const PAGES = 16 * 1024;
const PAGE_BYTES = 4096;
const ram = { sectionId: 2, idstr: 'ram', instanceId: 0, version: 4 };

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'walk-source-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Walks a file; gives also what was read of it. */
async function walkFile(path: string): Promise<Walked & { readBytes: number; jumps: number }> {
  const fd = openSync(path, 'r');
  try {
    const source = fileSource(fd);
    let [readBytes, jumps] = [0, 0];
    const counting: ByteSource = {
      ...source,
      read: async (into) => {
        const count = await source.read(into);
        readBytes += count;
        return count;
      },
      seek: (offset) => {
        jumps++;
        source.seek?.(offset);
      },
    };
    return { ...(await walkSource(counting, {})), readBytes, jumps };
  } finally {
    closeSync(fd);
  }
}

/** A mapped-ram file of 64 MiB with holes for all its pages but the first. */
function mappedRamFile(path: string): number {
  const head = new ByteWriter();
  writeHeader(head);
  writeConfiguration(head, { machineType: 'pc-q35-9.0', capabilities: ['mapped-ram'] });
  writeSectionHead(head, { kind: 'start', ...ram });
  writeRamWord(head, PAGES * PAGE_BYTES, RamFlag.memSize);
  head.counted('pc.ram').u64(BigInt(PAGES * PAGE_BYTES));
  const bitmapOffset = head.length + 28;
  const pagesOffset = 1024 * 1024;
  head.u32(1).u64(BigInt(PAGE_BYTES)).u64(BigInt(bitmapOffset)).u64(BigInt(pagesOffset));
  head.u8(1);
  const tail = new ByteWriter();
  writeRamWord(tail, 0, RamFlag.eos);
  writeFooter(tail, 2);
  tail.u8(0);
  writeFileSync(path, head.finish());
  const end = pagesOffset + PAGES * PAGE_BYTES;
  truncateSync(path, end);
  writeFileSync(path, tail.finish(), { flag: 'a' });
  return end + tail.length;
}

describe('a file', () => {
  test('is not read where nobody wants its bytes', async () => {
    const path = join(folder, 'mapped');
    mappedRamFile(path);
    const { walk, error, readBytes, jumps } = await walkFile(path);
    expect(error).toBeUndefined();
    expect(walk.model).toMatchObject({ ram: { blocks: [{ pages: { mapped: 1 } }] } });
    expect(walk.model.endOffset).toBeGreaterThan(PAGES * PAGE_BYTES);
    expect(jumps).toBe(1);
    expect(readBytes).toBeLessThan(4 * 1024 * 1024);
  });

  test('that ends within what nobody wants is found to end', async () => {
    const path = join(folder, 'cut');
    mappedRamFile(path);
    truncateSync(path, 40 * 1024 * 1024);
    const { walk, error } = await walkFile(path);
    expect(error).toMatchObject({ code: 'UNEXPECTED_END', offset: 40 * 1024 * 1024 });
    expect(walk.model.endOffset).toBeUndefined();
  });

  test('without section footers is walked by the vmdesc at its end; a pipe is not', async () => {
    const writer = new ByteWriter();
    writeHeader(writer);
    writeSectionHead(writer, { kind: 'start', ...ram });
    writeRamWord(writer, 0, RamFlag.eos);
    writeSectionHead(writer, { kind: 'end', sectionId: 2 });
    writeRamWord(writer, 0, RamFlag.eos);
    const device = { sectionId: 3, idstr: 'toy', instanceId: 0, version: 1 };
    writeSectionHead(writer, { kind: 'full', ...device });
    writer.u32(7).u8(0);
    const fields = [{ name: 'id', type: 'uint32', size: 4 }];
    const described = { name: 'toy', instance_id: 0, vmsd_name: 'toy', version: 1, fields };
    writeVmdesc(writer, JSON.stringify({ page_size: 4096, devices: [described] }));
    const bytes = writer.finish();
    const path = join(folder, 'footerless');
    writeFileSync(path, bytes);
    const { walk, error } = await walkFile(path);
    expect(error).toBeUndefined();
    expect(walk.model.devices).toMatchObject([{ idstr: 'toy', bodyLengthBytes: 4 }]);

    const piped = await walkSource(streamSource(Readable.from([bytes])), {});
    expect(piped.error).toMatchObject({ code: 'FOOTERS_ABSENT' });
    expect(piped.error?.likely).toContain('send-section-footer=off');
  });

  test('that cannot be read throws', async () => {
    const fd = openSync(folder, 'r');
    try {
      await expect(walkSource(fileSource(fd), {})).rejects.toThrow('EISDIR');
    } finally {
      closeSync(fd);
    }
  });
});
