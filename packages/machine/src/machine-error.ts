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
  | 'CLOSED'
  /** A disk image breaks its format. */
  | 'IMAGE_INVALID'
  /** A disk image uses a part of its format that is not supported here. */
  | 'IMAGE_UNSUPPORTED'
  /** A block node or device is not there, or cannot be made so. */
  | 'BLOCK_NODE'
  /** A disk cannot be read or written there. */
  | 'BLOCK_IO'
  /** A dirty bitmap is not there, or cannot be used so. */
  | 'BITMAP_INVALID';

/** Says that a machine could not be made, or that it can no longer run. */
export class MachineError extends WherryError<MachineErrorCode> {
  override readonly name = 'MachineError';
}
