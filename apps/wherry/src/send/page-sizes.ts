import { InvalidArgumentError } from 'commander';
import { CliError } from '../cli-error.ts';
import { formatBytes, parseSize } from '../sizes.ts';

/** Host page sizes at the destination in bytes, by RAM block. */
export type PageSizes = ReadonlyMap<string, number>;

const LEAST_BYTES = 4096;
const MOST_BYTES = 2 ** 30;

/** Adds one `--page-size BLOCK=SIZE`. @throws InvalidArgumentError */
export function addPageSize(text: string, sizes: PageSizes = new Map()): PageSizes {
  const at = text.lastIndexOf('=');
  if (at <= 0) throw new InvalidArgumentError(`'${text}' is no BLOCK=SIZE, such as pc.ram=2M.`);
  const bytes = parseSize(text.slice(at + 1));
  if (bytes < LEAST_BYTES || bytes > MOST_BYTES || !Number.isInteger(Math.log2(bytes))) {
    throw new InvalidArgumentError('A page size is a power of two from 4K to 1G.');
  }
  return new Map([...sizes, [text.slice(0, at), bytes]]);
}

/** @throws CliError 2 when a size is for a block that the guest has not, or that it does not fit */
export function checkPageSizes(
  sizes: PageSizes,
  blocks: readonly { readonly name: string; readonly usedBytes: number }[],
): void {
  for (const [name, bytes] of sizes) {
    const block = blocks.find((block) => block.name === name);
    if (block === undefined) {
      const known = blocks.map((block) => block.name).join(', ');
      throw new CliError(`The guest has no RAM block ${name}; it has ${known}`, 2);
    }
    if (block.usedBytes % bytes !== 0) {
      const size = formatBytes(block.usedBytes);
      throw new CliError(`${name} has ${size}, which is no multiple of ${formatBytes(bytes)}`, 2);
    }
  }
}
