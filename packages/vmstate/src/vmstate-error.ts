import { WherryError } from '@wherry/bytes';

/** Codes of {@link VmstateError}. */
export type VmstateErrorCode =
  | 'VERSION_TOO_NEW'
  | 'VERSION_TOO_OLD'
  | 'VALUE_MISMATCH'
  | 'VALUE_INVALID'
  | 'SUBSECTION_UNKNOWN'
  | 'COUNT_INVALID'
  | 'UNEXPECTED_END'
  | 'TRAILING_BYTES'
  | 'VALIDATION_FAILED'
  | 'HOOK_FAILED'
  | 'REGISTRATION_INVALID'
  | 'VMDESC_INVALID'
  | 'VMDESC_MISMATCH'
  | 'SCHEMA_MISMATCH'
  | 'SCHEMA_AMBIGUOUS'
  | 'PATH_UNKNOWN'
  | 'DUMP_INVALID'
  | 'KNOWN_INVALID';

/** Says that device state could not be saved or loaded, and in which section and field. */
export class VmstateError extends WherryError<VmstateErrorCode> {
  override readonly name = 'VmstateError';
}
