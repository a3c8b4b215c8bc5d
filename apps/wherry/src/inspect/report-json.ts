import type { LocatedModel, StreamModel } from '@wherry/snapshot';
import { decodeDevices } from '@wherry/snapshot';
import type { StateNode } from '@wherry/vmstate';
import { type Diagnosis, diagnose } from './diagnosis.ts';
import type { ReportOptions } from './report-options.ts';
import { formatUuid } from './uuid.ts';

/** Rises when a member changes its meaning or goes; new members may come at any time. */
const REPORT_VERSION = 1;
/** Larger buffers would pass the longest text that JavaScript can hold. */
const MAX_HEX_BYTES = 16 * 1024 * 1024;

/** Writes what a stream holds as one JSON object, in pieces; docs/inspect.md describes it. */
export function* formatJson(
  model: StreamModel,
  located: LocatedModel | undefined,
  { file, isShown, schema, packed, ramFiles, onMismatch }: ReportOptions,
  error: () => Diagnosis | undefined,
): Generator<string> {
  const { version, configuration, ram, items, omittedItems, eofOffset, endOffset, vmdesc } = model;
  const { container, streamOffset, isRecovery, dirtyBitmaps, liveSections } = model;
  const head = {
    report: REPORT_VERSION,
    file,
    packed,
    container,
    streamOffset,
    isRecovery,
    version,
    configuration: configuration && {
      ...configuration,
      uuid: configuration.uuid && formatUuid(configuration.uuid),
    },
    ram: ram && {
      ...ram,
      blocks: ram.blocks.map((block) => ({ ...block, file: ramFiles?.get(block.name) })),
    },
    dirtyBitmaps,
    liveSections,
    items,
    omittedItems,
    located,
  };
  yield `${stringify(head).slice(0, -1)},"devices":[`;
  let separator = '\n';
  for (const { device, state, by, note, mismatch } of decodeDevices(model, { schema })) {
    if (mismatch !== undefined) onMismatch(diagnose(mismatch, []));
    if (isShown !== undefined && !isShown(device.idstr)) continue;
    const { body, ...place } = device;
    const bytes = state === undefined && body !== undefined ? hex(body) : undefined;
    const text = stringify({
      ...place,
      by,
      bytes,
      note,
      error: mismatch && diagnose(mismatch, []),
    });
    if (state === undefined) {
      yield separator + text;
    } else {
      yield `${separator}${text.slice(0, -1)},"fields":[`;
      yield* new NodeWriter().list(state);
      yield ']}';
    }
    separator = ',\n';
  }
  const end =
    endOffset === undefined
      ? null
      : {
          eofOffset,
          vmdesc: vmdesc && { offset: vmdesc.offset, lengthBytes: vmdesc.lengthBytes },
          endOffset,
          trailingBytes: model.trailingBytes,
        };
  yield `\n],${stringify({ end, error: error() }).slice(1)}\n`;
}

const PIECE_CHARS = 64 * 1024;

/** Writes trees of fields in pieces: a device can have a million of them. */
class NodeWriter {
  #text = '';

  *list(nodes: readonly StateNode[]): Generator<string> {
    yield* this.#list(nodes);
    yield this.#text;
  }

  *#list(nodes: readonly StateNode[]): Generator<string> {
    let separator = '';
    for (const { name, type, offset, lengthBytes, value, children } of nodes) {
      this.#text += `${separator}{"name":${JSON.stringify(name)},"type":${JSON.stringify(type)},"offset":${offset},"lengthBytes":${lengthBytes}`;
      if (value !== undefined) this.#text += `,"value":${valueText(value)}`;
      if (children !== undefined) {
        this.#text += ',"children":[';
        yield* this.#list(children);
        this.#text += ']';
      }
      this.#text += '}';
      separator = ',';
      if (this.#text.length > PIECE_CHARS) {
        yield this.#text;
        this.#text = '';
      }
    }
  }
}

function valueText(value: NonNullable<StateNode['value']>): string {
  if (value instanceof Uint8Array) return JSON.stringify(hex(value));
  if (typeof value === 'bigint' && !Number.isSafeInteger(Number(value))) return `"${value}"`;
  return typeof value === 'string' ? JSON.stringify(value) : `${value}`;
}

function stringify(value: object): string {
  return JSON.stringify(value, (_key, member: unknown) => {
    if (typeof member === 'bigint') {
      return Number.isSafeInteger(Number(member)) ? Number(member) : member.toString();
    }
    return member instanceof Uint8Array ? hex(member) : member;
  });
}

function hex(bytes: Uint8Array): string | { readonly omittedBytes: number } {
  if (bytes.length > MAX_HEX_BYTES) return { omittedBytes: bytes.length };
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
