import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { WherryError } from '@wherry/bytes';
import type { StoredSource } from '@wherry/migration';
import { CliError } from '../cli-error.ts';
import { explainLine, fillNames } from '../explain/match.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from '../inspect/diagnosis.ts';
import { escapeControls } from '../inspect/output.ts';

/** What is read of a log: its end. */
const LOG_TAIL_BYTES = 64 * 1024;
/** How long a destination that has failed may take to write why. */
const LOG_MS = 1000;
const LOOK_EVERY_MS = 50;

/** What a send that failed, or was paused, prints with `--json`. */
export interface SendFailureReport {
  readonly status: 'failed' | 'postcopy-paused';
  readonly error: Diagnosis;
  /** What the destination's log says, where one was given. */
  readonly log?: readonly {
    readonly line: string;
    readonly cause: string;
    readonly action: string;
  }[];
}

/** Says why a send did not end well: exit code 3 where a postcopy is paused, otherwise 1. */
export class SendFailure extends CliError {
  readonly report: SendFailureReport;

  /** @param log what the destination's log says, from {@link explainLog} */
  constructor(
    { error, status }: Pick<StoredSource, 'error' | 'status'>,
    path: string,
    log: SendFailureReport['log'],
  ) {
    const isPaused = status === 'postcopy-paused';
    const diagnosis = diagnosisOf(error);
    const lines = [
      isPaused
        ? `The postcopy is paused, its guest waits for pages at the destination: ${formatDiagnosis(diagnosis)}`
        : `The destination has not got the guest of ${path}: ${formatDiagnosis(diagnosis)}`,
      ...(log ?? []).flatMap(({ line, cause, action }) => [
        `  its log    ${line}`,
        `  do         ${action}`,
        `  cause      ${cause} (wherry explain ${cause})`,
      ]),
    ];
    if (isPaused) {
      lines.push(
        '  go on      at the destination `migrate-recover` (QMP) with a new URI, then here:',
        `             wherry send --recover ${path} URI`,
      );
    }
    super(escapeControls(lines.join('\n')), isPaused ? 3 : 1);
    this.report = {
      status: isPaused ? 'postcopy-paused' : 'failed',
      error: diagnosis,
      ...(log === undefined ? {} : { log }),
    };
  }
}

function diagnosisOf(error: Error | undefined): Diagnosis {
  if (error instanceof WherryError) return diagnose(error, []);
  return { code: 'UNKNOWN', message: error?.message ?? 'no reason is known', path: [] };
}

/** Finds what the end of a log says of a failed migration; QEMU answers before it writes why. */
export async function explainLog(path: string): Promise<SendFailureReport['log'] & object> {
  const end = performance.now() + LOG_MS;
  for (;;) {
    const explained = tailOf(path)
      .split('\n')
      .flatMap((line) =>
        explainLine(line).map(({ cause, names }) => ({
          line: line.trim(),
          cause: cause.code,
          action: fillNames(cause.action, names),
        })),
      );
    if (explained.length > 0 || performance.now() > end) return explained;
    await sleep(LOOK_EVERY_MS);
  }
}

function tailOf(path: string): string {
  try {
    const fd = openSync(path, 'r');
    try {
      const { size } = fstatSync(fd);
      const tail = Buffer.alloc(Math.min(size, LOG_TAIL_BYTES));
      const count = readSync(fd, tail, 0, tail.length, size - tail.length);
      return tail.toString('utf8', 0, count);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return `The log cannot be read: ${error instanceof Error ? error.message : error}`;
  }
}
