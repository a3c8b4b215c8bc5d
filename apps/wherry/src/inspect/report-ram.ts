import type { RamBlockModel, StreamModel } from '@wherry/snapshot';
import { formatBytes } from '../sizes.ts';
import type { ReportOptions } from './report-options.ts';
import { formatTable } from './table.ts';

/** Writes the RAM blocks with their pages by kind: a table, or a few lines a block where that is too wide. */
export function* formatRam(
  { ram }: StreamModel,
  { columns, ramFiles }: Pick<ReportOptions, 'columns' | 'ramFiles'>,
): Generator<string> {
  if (ram === undefined) return;
  const { blocks, targetPageBytes, totalBytes } = ram;
  const number = `${blocks.length} block${blocks.length === 1 ? '' : 's'}`;
  yield '';
  yield `RAM: ${number}, ${formatBytes(totalBytes)}, target page ${targetPageBytes} bytes`;
  const facts = blocks.map((block) => factsOf(block));
  // A column is there when it says something of any block.
  const head = [...new Set(facts.flatMap((fact) => [...fact.keys()]))].filter(
    (name) => name === 'page' || facts.some((fact) => (fact.get(name) ?? '0') !== '0'),
  );
  const table = formatTable(
    ['RAM block', ...head],
    blocks.map(({ name }, i) => [name, ...head.map((column) => facts[i]!.get(column) ?? '')]),
  );
  if (table.split('\n', 1)[0]!.length <= columns) {
    yield table;
  } else {
    for (const [i, { name }] of blocks.entries()) {
      yield `  ${name}`;
      yield `    ${head.map((column) => `${column} ${facts[i]!.get(column) ?? '-'}`).join(', ')}`;
    }
  }
  if (ram.multifdFlushes > 0) {
    yield `multifd: ${ram.multifdFlushes} flushes; the pages went through its channels`;
  }
  for (const { name, sha256 } of blocks) {
    if (sha256 !== undefined) yield `SHA-256 ${sha256}  ${ramFiles?.get(name) ?? name}`;
  }
}

function factsOf(block: RamBlockModel): ReadonlyMap<string, string> {
  const { usedBytes, pageBytes, gpa, mapped, pages } = block;
  const facts = new Map([['size', formatBytes(usedBytes)]]);
  if (pageBytes !== undefined) facts.set('host page', formatBytes(pageBytes));
  if (gpa !== undefined) facts.set('address', `0x${gpa.toString(16)}`);
  if (mapped !== undefined) {
    facts.set('in the file', `${pages.mapped}`);
    facts.set('bitmap at', `0x${mapped.bitmapOffset.toString(16)}`);
    facts.set('pages at', `0x${mapped.pagesOffset.toString(16)}`);
    return facts;
  }
  const { page, zero, xbzrle, compress } = pages;
  for (const [kind, count] of Object.entries({ page, zero, xbzrle, compress })) {
    facts.set(kind, `${count}`);
  }
  return facts;
}
