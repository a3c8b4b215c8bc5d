import { WherryError } from '@wherry/bytes';
import { type StreamModel, streamFacts } from '@wherry/snapshot';
import { checkStream, type Schema, type SectionHead } from '@wherry/vmstate';
import { explainLine, fillNames } from '../explain/match.ts';
import type { Diagnosis } from './diagnosis.ts';
import type { SchemaFile } from './schema-file.ts';

/** What a machine refuses of a stream. */
interface Refusal {
  /** One sentence. */
  readonly why: string;
  /** QEMU's message. */
  readonly message: string;
}

/** A section that was read, at least in part. */
interface SeenSection extends SectionHead {
  readonly body?: Uint8Array;
}

/**
 * Finds the first thing in a stream that broke off which the machine of the schema does not load: a
 * destination that refuses it closes the connection, and the stream ends there or some way behind.
 */
export function diagnoseFirstRefusal(
  model: StreamModel,
  schemaFile: SchemaFile,
): Pick<Diagnosis, 'cause' | 'likely' | 'action'> | undefined {
  const refusal = findFirstRefusal(model, schemaFile);
  if (refusal === undefined) return undefined;
  const { why, message } = refusal;
  const [explanation] = explainLine(message);
  return {
    likely: `A destination such as the machine of --schema refuses this stream: ${message}. ${why}`,
    ...(explanation && {
      cause: explanation.cause.code,
      action: fillNames(explanation.cause.action, explanation.names),
    }),
  };
}

function findFirstRefusal(model: StreamModel, { schema, side }: SchemaFile): Refusal | undefined {
  const sections = sectionsSeen(model);
  const refusals = checkStream({ ...streamFacts(model), sections }, side).flatMap(
    ({ verdict, path, why, message }) =>
      verdict === 'breaks' && message !== undefined ? [{ of: path[0], why, message }] : [],
  );
  const isOfSection = ({ of }: { of: string | undefined }): boolean =>
    sections.some(({ idstr }) => idstr === of && idstr !== 'ram');
  const ofWhole = refusals.find((refusal) => !isOfSection(refusal));
  if (ofWhole !== undefined) return ofWhole;
  for (const section of sections) {
    const refusal = refusals.find(({ of }) => of === section.idstr);
    if (refusal !== undefined) return refusal;
    // A dump has every subsection that there is, another stream those that its guest needed just then.
    if (side.dump === undefined && section !== sections.at(-1)) continue;
    const subsection = findUnknownSubsection(schema, section);
    if (subsection !== undefined) {
      return {
        why: 'The other side has no such subsection.',
        message: `VM subsection '${subsection}' in '${section.idstr}' does not exist`,
      };
    }
  }
  return undefined;
}

function sectionsSeen({ items, devices, partial }: StreamModel): SeenSection[] {
  const bodies = new Map(devices.map(({ offset, body }) => [offset, body]));
  const heads = [...items.filter((item) => item.type === 'section'), ...(partial ? [partial] : [])];
  return heads
    .filter(({ kind }) => kind === 'start' || kind === 'full')
    .map((head) => {
      const body = head === partial ? partial.body : bodies.get(head.offset);
      const { idstr, instanceId, version } = head;
      return { idstr, instanceId, version, ...(body && { body }) };
    });
}

function findUnknownSubsection(schema: Schema, section: SeenSection): string | undefined {
  if (section.body === undefined) return undefined;
  try {
    schema.decode(section, section.body);
    return undefined;
  } catch (error) {
    if (!(error instanceof WherryError)) throw error;
    return error.code === 'SUBSECTION_UNKNOWN'
      ? error.found?.replace(/^subsection /, '')
      : undefined;
  }
}
