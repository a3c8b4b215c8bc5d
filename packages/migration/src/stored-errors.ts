import { BytesError } from '@wherry/bytes';
import { MigrationError } from './migration-error.ts';

/** Says that a file has become shorter. */
export function shorter(offset: number): BytesError {
  return new BytesError('UNEXPECTED_END', 'The file has become shorter', {
    offset,
    likely: 'Something has changed the file since it was opened',
  });
}

/** Says that nobody here can know whether the destination runs the guest. */
export function outcomeUnknown(cause: Error): MigrationError {
  return new MigrationError(
    'OUTCOME_UNKNOWN',
    'The connection broke while the guest was handed over: the destination may run it',
    {
      found: cause.message,
      likely:
        'Look at the destination before the file is sent again: its disks belong to one guest',
      cause,
    },
  );
}
