import { WherryError } from '@wherry/bytes';

/** Codes of {@link ReceiveError}. */
export type ReceiveErrorCode = 'NOTHING_SENT' | 'UNSUPPORTED' | 'CHANNEL_INVALID';

/** Says why a connection cannot be received into a file. */
export class ReceiveError extends WherryError<ReceiveErrorCode> {
  override readonly name = 'ReceiveError';
}
