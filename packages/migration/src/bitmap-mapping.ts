import { MigrationError } from './migration-error.ts';

/** Names of one bitmap: here, and in the stream. */
export interface BitmapAlias {
  readonly name: string;
  readonly alias: string;
  readonly transform?: { readonly persistent?: boolean | undefined } | undefined;
}

/** Names of a node and of its bitmaps that migrate. @see BitmapMigrationNodeAlias in QEMU's qapi/migration.json */
export interface NodeAlias {
  readonly 'node-name': string;
  readonly alias: string;
  readonly bitmaps: readonly BitmapAlias[];
}

/** The parameter `block-bitmap-mapping`. */
export type BitmapMapping = readonly NodeAlias[];

const MAX_ALIAS_BYTES = 255;
const MAX_NODE_NAME_BYTES = 31;
const MAX_BITMAP_NAME_BYTES = 1023;

/**
 * Refuses a mapping that is ambiguous, or whose names cannot be.
 *
 * @throws MigrationError `PARAMETER_INVALID`, with QEMU's text
 * @see construct_alias_map in QEMU's migration/block-dirty-bitmap.c, run in both directions
 */
export function checkBitmapMapping(mapping: BitmapMapping): void {
  const seen = new Set<string>();
  const once = (what: string, keys: readonly string[], problem: string): void => {
    const key = JSON.stringify([what, ...keys]);
    if (seen.has(key)) throw invalid(problem);
    seen.add(key);
  };
  for (const { 'node-name': node, alias, bitmaps } of mapping) {
    if (!/^[a-zA-Z][a-zA-Z0-9._-]*$/.test(alias)) {
      throw invalid(`The node alias '${alias}' is not well-formed`);
    }
    atMost(MAX_ALIAS_BYTES, alias, `The node alias '${alias}'`);
    atMost(MAX_NODE_NAME_BYTES, node, `The node name '${node}'`);
    once('node', [node], `The node name '${node}' is mapped twice`);
    for (const bitmap of bitmaps) {
      atMost(MAX_ALIAS_BYTES, bitmap.alias, `The bitmap alias '${bitmap.alias}'`);
      atMost(MAX_BITMAP_NAME_BYTES, bitmap.name, `The bitmap name '${bitmap.name}'`);
      once('bitmap', [node, bitmap.name], `The bitmap '${node}'/'${bitmap.name}' is mapped twice`);
    }
  }
  for (const { alias, bitmaps } of mapping) {
    once('alias', [alias], `The node alias '${alias}' is used twice`);
    for (const bitmap of bitmaps) {
      const problem = `The bitmap alias '${alias}'/'${bitmap.alias}' is used twice`;
      once('bitmap alias', [alias, bitmap.alias], problem);
    }
  }
}

function atMost(bytes: number, name: string, what: string): void {
  if (new TextEncoder().encode(name).length > bytes) {
    throw invalid(`${what} is longer than ${bytes} bytes`);
  }
}

function invalid(problem: string): MigrationError {
  return new MigrationError(
    'PARAMETER_INVALID',
    `Invalid mapping given for block-bitmap-mapping: ${problem}`,
  );
}
