import { WherryError } from '@wherry/bytes';

/** Codes of {@link MigrationError}. */
export type MigrationErrorCode =
  | 'CANCELLED'
  | 'CONNECTION_LOST'
  | 'OUTCOME_UNKNOWN'
  | 'DESTINATION_FAILED'
  | 'CAPABILITY_UNSUPPORTED'
  | 'CAPABILITY_CONFLICT'
  | 'PARAMETER_INVALID'
  | 'MACHINE_MISMATCH'
  | 'CAPABILITY_MISMATCH'
  | 'RAM_MISMATCH'
  | 'SECTION_UNKNOWN'
  | 'SECTION_VERSION'
  | 'DEVICE_STATE'
  | 'BLOCKED'
  | 'BITMAP_INVALID'
  | 'COMMAND_UNEXPECTED'
  | 'PAGE_SIZE_MISMATCH'
  | 'PAGE_REQUEST_INVALID'
  | 'PAGES_MISSING'
  | 'PAUSED'
  | 'RECOVERY_INVALID'
  | 'RAM_RECORD_INVALID'
  | 'MULTIFD_INVALID'
  | 'STATE';

/** Says why a migration cannot begin, go on or end. */
export class MigrationError extends WherryError<MigrationErrorCode> {
  override readonly name = 'MigrationError';
}
