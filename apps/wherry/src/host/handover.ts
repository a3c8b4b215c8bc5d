import { createHash } from 'node:crypto';
import type { DeviceState } from '@wherry/migration';
import type { GuestRam, RamBlock } from '@wherry/page-engine';

/** One RAM block at hand-over: a checksum over those of its pages that nobody has written since. */
export interface BlockDigest {
  readonly name: string;
  readonly pages: number;
  /** Pages under the checksum. */
  readonly compared: number;
  readonly checksum: string;
  /** Bitmap, base64: the pages written since, which are not under the checksum. Bit 0 is the first page. */
  readonly dirty: string;
}

/** One device's section at hand-over. */
export interface DeviceDigest {
  readonly idstr: string;
  readonly 'instance-id': number;
  readonly bytes: number;
  readonly digest: string;
}

/** Digests every block, leaving out the pages in `masks`, or those in the dirty log where there is no mask. */
export function digestRam(
  ram: GuestRam,
  masks: readonly { readonly name: string; readonly dirty: string }[] | undefined,
): BlockDigest[] {
  return ram.blocks.map((block) => {
    const mask = masks?.find(({ name }) => name === block.name);
    const bitmap = mask === undefined ? block.dirtyBitmap() : Buffer.from(mask.dirty, 'base64');
    return digestBlock(block, bitmap);
  });
}

function digestBlock(block: RamBlock, dirty: Uint8Array): BlockDigest {
  let checksum = 0n;
  let compared = 0;
  const isDirty = (page: number): boolean => ((dirty[page >> 3] ?? 0) & (1 << (page & 7))) !== 0;
  for (let page = 0; page < block.pageCount; ) {
    if (isDirty(page)) {
      page++;
      continue;
    }
    let end = page + 1;
    while (end < block.pageCount && !isDirty(end)) end++;
    checksum = block.checksum(page, end, checksum);
    compared += end - page;
    page = end;
  }
  return {
    name: block.name,
    pages: block.pageCount,
    compared,
    checksum: checksum.toString(16).padStart(16, '0'),
    dirty: Buffer.from(dirty).toString('base64'),
  };
}

/** Digests the sections of the devices as they crossed. */
export function digestDevices(states: readonly DeviceState[]): DeviceDigest[] {
  return states.map(({ idstr, instanceId, bytes }) => ({
    idstr,
    'instance-id': instanceId,
    bytes: bytes.length,
    digest: createHash('sha256').update(bytes).digest('hex').slice(0, 16),
  }));
}
