import type { QemuProcess } from './qemu.ts';

/** A disk of 64 MiB that no device uses, for bitmaps. */
export const bitmapNode: readonly string[] = [
  '-blockdev',
  'driver=null-co,node-name=disk0,size=67108864,read-zeroes=on',
];

/** Adds three bitmaps, and writes so that two of them get bits. */
export async function addDirtyBitmaps({ qmp }: QemuProcess): Promise<void> {
  const add = async (name: string, granularity: number, disabled: boolean): Promise<void> => {
    await qmp.execute('block-dirty-bitmap-add', { node: 'disk0', name, granularity, disabled });
  };
  const write = async (range: string): Promise<void> => {
    await qmp.execute('human-monitor-command', {
      'command-line': `qemu-io disk0 "write ${range}"`,
    });
  };
  await add('coarse', 65_536, false);
  await add('fine', 4096, false);
  await write('128k 200k');
  await add('empty', 65_536, true);
  await write('48M 4k');
}
