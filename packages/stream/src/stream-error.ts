import { WherryError } from '@wherry/bytes';

/** Codes of {@link StreamError}. */
export type StreamErrorCode =
  | 'NOT_A_STREAM'
  | 'VERSION_UNSUPPORTED'
  | 'CONFIGURATION_MISSING'
  | 'CONFIGURATION_INVALID'
  | 'SECTION_TYPE_UNKNOWN'
  | 'SECTION_TOO_LARGE'
  | 'FOOTER_MISSING'
  | 'FOOTER_MISMATCH'
  | 'FOOTERS_ABSENT'
  | 'COMMAND_UNKNOWN'
  | 'COMMAND_INVALID'
  | 'RAM_RECORD_INVALID'
  | 'RAM_BLOCK_UNKNOWN'
  | 'RAM_LIST_INVALID'
  | 'XBZRLE_INVALID'
  | 'LIVE_SECTION_INVALID'
  | 'CONTAINER_INVALID'
  | 'CONTAINER_PACKED'
  | 'GUEST_INCOMPLETE'
  | 'RETURN_PATH_INVALID';

/** Says that bytes break the grammar of a migration stream, and where. */
export class StreamError extends WherryError<StreamErrorCode> {
  override readonly name = 'StreamError';
}
