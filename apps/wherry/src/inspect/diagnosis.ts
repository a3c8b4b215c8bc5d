import { formatOffset, type WherryError } from '@wherry/bytes';
import { causeOf, causeOfError } from '../explain/catalogue.ts';
import { namesIn } from '../explain/match.ts';

/** What broke a stream, for a report. */
export interface Diagnosis {
  readonly code: string;
  /** Code in the catalogue of causes. */
  readonly cause?: string;
  readonly message: string;
  readonly offset?: number;
  readonly path: readonly string[];
  readonly expected?: string;
  readonly found?: string;
  readonly likely?: string;
  /** What to do about it, where that is more than the cause's own action says. */
  readonly action?: string;
}

/** Turns an error from reading a stream into a diagnosis; `path` is where the reader was, for errors that do not know it. */
export function diagnose(error: WherryError, path: readonly string[]): Diagnosis {
  const { code, what: message, offset, expected, found, likely } = error;
  const cause = causeOfError(code)?.code;
  return {
    code,
    ...(cause === undefined ? {} : { cause }),
    message,
    ...(offset === undefined ? {} : { offset }),
    path: error.path.length > 0 ? error.path : path,
    ...(expected === undefined ? {} : { expected }),
    ...(found === undefined ? {} : { found }),
    ...(likely === undefined ? {} : { likely }),
  };
}

/** Writes a diagnosis as lines, one fact each. */
export function formatDiagnosis(diagnosis: Diagnosis): string {
  const { message, offset, path, expected, found, likely, cause } = diagnosis;
  const lines = [message];
  const add = (label: string, text: string | undefined): void => {
    if (text !== undefined && text !== '') lines.push(`  ${label.padEnd(10)}${text}`);
  };
  add('offset', offset === undefined ? undefined : formatOffset(offset));
  add('in', path.join(' > '));
  add('expected', expected);
  add('found', found);
  add('likely', likely);
  const known = cause === undefined ? undefined : causeOf(cause);
  // An action that speaks of what a message names says nothing without the message.
  const hasNames = known === undefined || namesIn(known.action).length > 0;
  add('do', diagnosis.action ?? (hasNames ? undefined : known.action));
  if (known !== undefined) add('cause', `${known.code} (wherry explain ${known.code})`);
  return lines.join('\n');
}
