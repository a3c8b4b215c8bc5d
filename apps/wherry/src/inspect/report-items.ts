import type { CommandModel, ItemModel, StreamModel } from '@wherry/snapshot';

/** Writes everything in stream order, successive device sections as one line. */
export function* formatItems({ items, omittedItems }: StreamModel): Generator<string> {
  for (let i = 0; i < items.length; i++) {
    const item = items[i]!;
    const line = (text: string): string =>
      `  0x${item.offset.toString(16).padEnd(10)}${item.packaged ? '  ' : ''}${text}`;
    if (item.type === 'section' && item.kind === 'full') {
      let [count, bytes] = [0, 0];
      for (let next: ItemModel | undefined = item; isFull(next); next = items[++i]) {
        count++;
        bytes += next.lengthBytes;
      }
      i--;
      yield line(`full     ${count} device section${count === 1 ? '' : 's'}, ${bytes} bytes`);
    } else if (item.type === 'section') {
      const times = item.count === 1 ? '' : ` × ${item.count}`;
      const { kind, idstr, sectionId, lengthBytes } = item;
      yield line(`${kind.padEnd(8)} ${idstr} (section ${sectionId})${times}, ${lengthBytes} bytes`);
    } else if (item.type === 'command') {
      yield line(`command  ${formatCommand(item.command)}`);
    } else {
      yield line('eof');
    }
  }
  if (omittedItems > 0) yield `  and ${omittedItems} more items`;
}

function isFull(item: ItemModel | undefined): item is ItemModel & { readonly type: 'section' } {
  return item?.type === 'section' && item.kind === 'full';
}

function formatCommand(command: CommandModel): string {
  switch (command.name) {
    case 'ping':
      return `ping ${command.value < 10 ? '' : '0x'}${command.value.toString(16)}`;
    case 'postcopy-advise': {
      const { ram } = command;
      if (ram === undefined) return 'postcopy-advise (dirty bitmaps only)';
      return `postcopy-advise (page sizes 0x${ram.pageSizesSummary.toString(16)}, target page 0x${ram.targetPageBytes.toString(16)})`;
    }
    case 'postcopy-ram-discard': {
      const { block, ranges, lengthBytes } = command;
      return `postcopy-ram-discard ${block}: ${lengthBytes} bytes in ${ranges} range${ranges === 1 ? '' : 's'}`;
    }
    case 'packaged':
      return `packaged, ${command.lengthBytes} bytes:`;
    case 'recv-bitmap':
      return `recv-bitmap ${command.block}`;
    default:
      return command.name;
  }
}
