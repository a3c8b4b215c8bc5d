import { formatOffset } from '@wherry/bytes';
import type { CommandModel, ItemModel, StreamModel } from '@wherry/snapshot';
import { decodeDevices, noteWithout } from '@wherry/snapshot';
import { formatBytes } from '../sizes.ts';
import { diagnose, formatDiagnosis } from './diagnosis.ts';
import { formatTree } from './report-tree.ts';
import { formatUuid } from './uuid.ts';

/** Writes what a stream holds for people, line by line. */
export function* formatReport(
  model: StreamModel,
  table: (head: readonly string[], rows: readonly (readonly string[])[]) => string,
): Generator<string> {
  if (model.version === undefined) return;
  yield `Migration stream, version ${model.version}`;
  yield* formatConfiguration(model);
  yield* formatRam(model, table);
  yield '';
  yield 'Items in their order';
  yield* formatItems(model);
  yield* formatDevices(model);
  yield* formatEnd(model);
}

function* formatConfiguration({ configuration }: StreamModel): Generator<string> {
  if (configuration === undefined) {
    yield 'Machine type     not stated (no configuration section)';
    return;
  }
  const { machineType, targetPageBits, capabilities, uuid } = configuration;
  yield `Machine type     ${machineType}`;
  if (targetPageBits !== undefined) yield `Target page      ${2 ** targetPageBits} bytes`;
  if (capabilities !== undefined) yield `Capabilities     ${capabilities.join(', ')}`;
  if (uuid !== undefined) yield `UUID             ${formatUuid(uuid)}`;
}

function* formatRam(
  { ram }: StreamModel,
  table: (head: readonly string[], rows: readonly (readonly string[])[]) => string,
): Generator<string> {
  if (ram === undefined) return;
  const { blocks, targetPageBytes, totalBytes } = ram;
  const isMapped = blocks.some(({ mapped }) => mapped !== undefined);
  const hasGpa = blocks.some(({ gpa }) => gpa !== undefined);
  yield '';
  yield `RAM: ${blocks.length} blocks, ${formatBytes(totalBytes)}, target page ${targetPageBytes} bytes`;
  const hasPageBytes = blocks.some(({ pageBytes }) => pageBytes !== undefined);
  const head = ['RAM block', 'size'];
  if (hasPageBytes) head.push('host page');
  if (hasGpa) head.push('address');
  if (isMapped) head.push('in the file', 'bitmap at', 'pages at');
  else head.push('page', 'zero', 'xbzrle', 'compress');
  const rows = blocks.map(({ name, usedBytes, pageBytes, gpa, mapped, pages }) => {
    const row = [name, formatBytes(usedBytes)];
    if (hasPageBytes) row.push(pageBytes === undefined ? '' : formatBytes(pageBytes));
    if (hasGpa) row.push(gpa === undefined ? '' : `0x${gpa.toString(16)}`);
    const { page, zero, xbzrle, compress } = pages;
    const counts = isMapped
      ? [pages.mapped, mapped?.bitmapOffset ?? 0, mapped?.pagesOffset ?? 0]
      : [page, zero, xbzrle, compress];
    return [...row, ...counts.map(String)];
  });
  yield table(head, rows);
  if (ram.multifdFlushes > 0) {
    yield `multifd: ${ram.multifdFlushes} flushes; the pages went through its channels`;
  }
}

function* formatItems({ items, omittedItems }: StreamModel): Generator<string> {
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

function* formatDevices(model: StreamModel): Generator<string> {
  if (model.devices.length === 0) return;
  const isDecodable = model.vmdesc !== undefined;
  yield '';
  yield `Devices: ${model.devices.length}${isDecodable ? '' : `, ${noteWithout(model)}`}`;
  for (const { device, state, note, mismatch } of decodeDevices(model)) {
    const { idstr, instanceId, version, offset, bodyLengthBytes, sectionId } = device;
    yield `  ${idstr}, instance ${instanceId}, version ${version} (section ${sectionId}, ${bodyLengthBytes} bytes at 0x${offset.toString(16)})`;
    if (state !== undefined) yield* formatTree(state, '    ');
    if (note !== undefined && isDecodable) yield `    ${note}`;
    if (mismatch !== undefined) {
      yield `    not decoded: ${formatDiagnosis(diagnose(mismatch, [])).replaceAll('\n', '\n    ')}`;
    }
  }
}

function* formatEnd(model: StreamModel): Generator<string> {
  yield '';
  const { eofOffset, endOffset, vmdesc, trailingBytes } = model;
  if (endOffset === undefined || eofOffset === undefined) {
    yield 'The stream breaks off here.';
    return;
  }
  const description =
    vmdesc === undefined ? 'no vmdesc' : `then the vmdesc, ${vmdesc.lengthBytes} bytes`;
  yield `The stream ends at ${formatOffset(endOffset)}: EOF at ${formatOffset(eofOffset)}, ${description}.`;
  yield trailingBytes === 0
    ? 'Nothing follows it.'
    : `${trailingBytes} bytes follow it that do not belong to it.`;
}
