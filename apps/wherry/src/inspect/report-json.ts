import type { LocatedModel, StreamModel } from '@wherry/snapshot';
import { decodeDevices } from '@wherry/snapshot';
import type { StateNode } from '@wherry/vmstate';
import { type Diagnosis, diagnose } from './diagnosis.ts';
import type { ReportOptions } from './report-text.ts';
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
    const fields = state?.map(nodeOf);
    const bytes = state === undefined && body !== undefined ? hex(body) : undefined;
    yield separator +
      stringify({ ...place, by, fields, bytes, note, error: mismatch && diagnose(mismatch, []) });
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

function nodeOf(node: StateNode): object {
  const { name, type, offset, lengthBytes, value, children } = node;
  return { name, type, offset, lengthBytes, value, children: children?.map(nodeOf) };
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
