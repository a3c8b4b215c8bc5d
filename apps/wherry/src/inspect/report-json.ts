import type { StreamModel } from '@wherry/snapshot';
import { decodeDevices } from '@wherry/snapshot';
import type { StateNode } from '@wherry/vmstate';
import { type Diagnosis, diagnose } from './diagnosis.ts';
import { formatUuid } from './uuid.ts';

/** Larger buffers would pass the longest text that JavaScript can hold. */
const MAX_HEX_BYTES = 16 * 1024 * 1024;

/** Writes what a stream holds as one JSON object, in pieces; docs/inspect.md describes it. */
export function* formatJson(model: StreamModel, error?: Diagnosis): Generator<string> {
  const { version, configuration, ram, items, omittedItems, eofOffset, endOffset, vmdesc } = model;
  const head = {
    version,
    configuration: configuration && {
      ...configuration,
      uuid: configuration.uuid && formatUuid(configuration.uuid),
    },
    ram,
    items,
    omittedItems,
  };
  yield `${stringify(head).slice(0, -1)},"devices":[`;
  let separator = '\n';
  for (const { device, state, note, mismatch } of decodeDevices(model)) {
    const { body, ...place } = device;
    const fields = state?.map(nodeOf);
    const bytes = state === undefined && body !== undefined ? hex(body) : undefined;
    yield separator +
      stringify({ ...place, fields, bytes, note, error: mismatch && diagnose(mismatch, []) });
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
  yield `\n],${stringify({ end, error }).slice(1)}\n`;
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
