import { WherryError } from '@wherry/bytes';
import type { StreamModel, StreamWalk } from '@wherry/snapshot';
import { type Diagnosis, diagnose } from './diagnosis.ts';
import { diagnoseFirstRefusal } from './first-refusal.ts';
import { guessFormat } from './guess-format.ts';
import type { SchemaFile } from './schema-file.ts';

/**
 * Says why a walk ended before the stream's end, with the cause that is behind it; with a schema of the
 * other side also whether that side may have ended it.
 */
export function diagnoseBreak(
  error: WherryError,
  walk: StreamWalk,
  head: Uint8Array,
  schemaFile: SchemaFile | undefined,
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
        cause: causeOfEnd(model, path, head),
        ...bySchema(model, schemaFile, diagnosis),
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
        cause: 'TRUNCATED_IN_DEVICE',
        ...bySchema(model, schemaFile, diagnosis),
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

/** Names the field at which a device's state ends, and what the machine of the schema refuses. */
function bySchema(
  model: StreamModel,
  schemaFile: SchemaFile | undefined,
  { path }: Diagnosis,
): Partial<Diagnosis> {
  if (schemaFile === undefined) return {};
  const fields = fieldAtBreak(model, schemaFile);
  return {
    ...(fields.length > 0 && { path: [...path, ...fields] }),
    ...diagnoseFirstRefusal(model, schemaFile),
  };
}

function fieldAtBreak({ partial }: StreamModel, { schema }: SchemaFile): readonly string[] {
  if (partial?.body === undefined) return [];
  try {
    schema.decode(partial, partial.body, partial.bodyOffset);
    return [];
  } catch (error) {
    if (!(error instanceof WherryError)) throw error;
    return error.path.slice(1);
  }
}

function holdsVmdesc(body: Uint8Array = new Uint8Array()): boolean {
  const tail = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  return tail.at(-1) === 0x7d && tail.includes('"page_size"');
}
