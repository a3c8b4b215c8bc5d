import type { MemoryFile } from '../src/index.ts';

const OFFSET = 0x00ff_ffff_ffff_fe00n;

/**
 * Walks a qcow2 image without a line of the code under test, and compares every refcount with the number
 * of references that there are: what `qemu-img check` does. Images without snapshots, 16-bit refcounts.
 *
 * @returns what is wrong, one line for each cluster
 */
export function checkRefcounts(file: MemoryFile): string[] {
  const bytes = file.toBytes();
  const view = new DataView(bytes.buffer);
  const clusterBytes = 2 ** view.getUint32(20);
  const used = new Map<number, number>();
  const use = (offset: number, length: number): void => {
    for (let at = Math.floor(offset / clusterBytes); at * clusterBytes < offset + length; at++) {
      used.set(at, (used.get(at) ?? 0) + 1);
    }
  };
  const entries = (offset: number, count: number): bigint[] =>
    Array.from({ length: count }, (_, i) => view.getBigUint64(offset + i * 8));
  const size = (at: number): number => Number(view.getBigUint64(at));
  const isV3 = view.getUint32(4) === 3;
  use(0, 1);
  const l1 = entries(size(40), view.getUint32(36));
  use(size(40), l1.length * 8);
  for (const entry of l1) {
    const l2 = Number(entry & OFFSET);
    if (l2 === 0) continue;
    use(l2, clusterBytes);
    for (const place of entries(l2, clusterBytes / 8)) {
      if ((place & OFFSET) !== 0n) use(Number(place & OFFSET), clusterBytes);
    }
  }
  const table = entries(size(48), (view.getUint32(56) * clusterBytes) / 8);
  use(size(48), table.length * 8);
  for (const block of table) if (block !== 0n) use(Number(block), clusterBytes);
  for (let at = isV3 ? view.getUint32(100) : 72; ; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === 0) break;
    if (type === 0x23852875) {
      const directory = size(at + 24);
      use(directory, size(at + 16));
      for (let i = 0, entry = directory; i < view.getUint32(at + 8); i++) {
        const bitmap = entries(size(entry), view.getUint32(entry + 8));
        use(size(entry), Math.max(1, bitmap.length * 8));
        for (const place of bitmap) if (place > 1n) use(Number(place), clusterBytes);
        entry += Math.ceil((24 + view.getUint16(entry + 18)) / 8) * 8;
      }
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }
  const wrong: string[] = [];
  const perBlock = clusterBytes / 2;
  for (const [index, block] of table.entries()) {
    if (block === 0n) continue;
    for (let i = 0; i < perBlock; i++) {
      const cluster = index * perBlock + i;
      const count = view.getUint16(Number(block) + i * 2);
      const references = used.get(cluster) ?? 0;
      used.delete(cluster);
      if (count !== references)
        wrong.push(`cluster ${cluster}: refcount ${count}, ${references} references`);
    }
  }
  for (const cluster of used.keys()) wrong.push(`cluster ${cluster}: used, no refcount block`);
  return wrong;
}
