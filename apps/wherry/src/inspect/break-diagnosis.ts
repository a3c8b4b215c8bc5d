import type { WherryError } from '@wherry/bytes';
import type { StreamModel, StreamWalk } from '@wherry/snapshot';
import type { Schema } from '@wherry/vmstate';
import { type Diagnosis, diagnose } from './diagnosis.ts';
import { guessFormat } from './guess-format.ts';

/** Says why a walk ended before the stream's end, with the cause that is behind it. */
export function diagnoseBreak(
  error: WherryError,
  walk: StreamWalk,
  head: Uint8Array,
  schema: Schema | undefined,
): Diagnosis {
  const { model, path } = walk;
  const diagnosis = diagnose(error, path);
  switch (error.code) {
    case 'NOT_A_STREAM':
      return diagnoseHead(diagnosis, head);
    case 'VERSION_UNSUPPORTED':
      return { ...diagnosis, cause: error.found === '2' ? 'STREAM_V2' : 'STREAM_VERSION' };
    case 'UNEXPECTED_END':
      return {
        ...diagnosis,
        ...fieldAtBreak(model, schema, diagnosis),
        cause: causeOfEnd(model, path, head),
      };
    case 'VALUE_OUT_OF_RANGE':
      if (model.partial === undefined || model.partial.kind === 'full') return diagnosis;
      return {
        ...diagnosis,
        cause: model.partial.idstr === 'ram' ? 'RAM_RECORD_INVALID' : 'LIVE_SECTION_INVALID',
      };
    case 'FOOTER_MISSING':
      // A device's end was looked for in all that follows; with the stream's own end in it, nothing was cut.
      if (model.partial?.kind !== 'full' || holdsVmdesc(model.partial.body)) return diagnosis;
      return {
        ...diagnosis,
        ...fieldAtBreak(model, schema, diagnosis),
        cause: 'TRUNCATED_IN_DEVICE',
      };
    default:
      return diagnosis;
  }
}

function diagnoseHead(diagnosis: Diagnosis, head: Uint8Array): Diagnosis {
  const guess = guessFormat(head);
  if (guess !== undefined) {
    const { cause, format } = guess;
    return {
      ...diagnosis,
      found: `${format}: ${diagnosis.found ?? ''}`,
      likely: `This is ${format}`,
      cause,
    };
  }
  return diagnosis;
}

function causeOfEnd(model: StreamModel, path: readonly string[], head: Uint8Array): string {
  if (head.length === 0) return 'EMPTY_INPUT';
  const { partial, eofOffset } = model;
  if (eofOffset !== undefined) return 'TRUNCATED_IN_VMDESC';
  if (partial !== undefined) {
    return partial.kind === 'full' ? 'TRUNCATED_IN_DEVICE' : 'TRUNCATED_IN_RAM';
  }
  if (path[0] === 'package') return 'PACKAGE_CUT';
  return model.items.length === 0 ? 'TRUNCATED_IN_HEADER' : 'TRUNCATED_BETWEEN_SECTIONS';
}

/** Names the field at which a device's state ends, where a schema of the machine was given. */
function fieldAtBreak(
  { partial }: StreamModel,
  schema: Schema | undefined,
  { path }: Diagnosis,
): { readonly path?: readonly string[] } {
  if (partial?.body === undefined || schema === undefined) return {};
  try {
    schema.decode(partial, partial.body, partial.bodyOffset);
    return {};
  } catch (error) {
    const { path: fields = [] } = error as Partial<WherryError>;
    return { path: [...path, ...fields.slice(1)] };
  }
}

function holdsVmdesc(body: Uint8Array = new Uint8Array()): boolean {
  const tail = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  return tail.at(-1) === 0x7d && tail.includes('"page_size"');
}
