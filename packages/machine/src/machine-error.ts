import { WherryError } from '@wherry/bytes';

/** Codes of {@link MachineError}. */
export type MachineErrorCode =
  /** An option is out of its range. */
  | 'OPTION_INVALID'
  /** The platform lacks something that a guest needs. */
  | 'PLATFORM_UNSUPPORTED'
  /** A vCPU's thread ended with an error; the guest cannot go on. */
  | 'VCPU_FAILED'
  /** The machine is closed. */
  | 'CLOSED';

/** Says that a machine could not be made, or that it can no longer run. */
export class MachineError extends WherryError<MachineErrorCode> {
  override readonly name = 'MachineError';
}
