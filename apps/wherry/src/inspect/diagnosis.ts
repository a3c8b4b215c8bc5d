import { formatOffset, type WherryError } from '@wherry/bytes';

/** What broke a stream, for a report. */
export interface Diagnosis {
  readonly code: string;
  readonly message: string;
  readonly offset?: number;
  readonly path: readonly string[];
  readonly expected?: string;
  readonly found?: string;
  readonly likely?: string;
}

/** Turns an error from reading a stream into a diagnosis; `path` is where the reader was, for errors that do not know it. */
export function diagnose(error: WherryError, path: readonly string[]): Diagnosis {
  const { code, what: message, offset, expected, found, likely } = error;
  return {
    code,
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
  const { message, offset, path, expected, found, likely } = diagnosis;
  const lines = [message];
  const add = (label: string, text: string | undefined): void => {
    if (text !== undefined && text !== '') lines.push(`  ${label.padEnd(10)}${text}`);
  };
  add('offset', offset === undefined ? undefined : formatOffset(offset));
  add('in', path.join(' > '));
  add('expected', expected);
  add('found', found);
  add('likely', likely);
  return lines.join('\n');
}
