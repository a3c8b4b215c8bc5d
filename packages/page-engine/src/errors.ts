/** Names every way in which the page engine refuses an input. */
export type PageEngineErrorCode =
  /** A RAM block's name, length or page size cannot be. */
  | 'BAD_BLOCK'
  /** An option is out of its range. */
  | 'BAD_OPTION'
  /** One host page of a block does not fit into a bank. */
  | 'BANK_TOO_SMALL'
  /** The platform refused the memory. */
  | 'OUT_OF_MEMORY'
  /** The call needs the shared flavour. */
  | 'NOT_SHARED'
  /** The platform lacks something that the engine needs. */
  | 'UNSUPPORTED_PLATFORM'
  /** An offset or length lies outside of the block, the buffer or the segment. */
  | 'RANGE'
  | 'REQUEST_OUT_OF_RANGE'
  | 'REQUEST_UNALIGNED'
  | 'DISCARD_OUT_OF_RANGE'
  | 'DISCARD_UNALIGNED'
  /** A page record names a block that this guest does not have. */
  | 'UNKNOWN_BLOCK'
  /** A page record says "same block" and there was none before. */
  | 'NO_PREVIOUS_BLOCK'
  /** A page record's offset lies outside of its block. */
  | 'OFFSET_OUT_OF_RANGE'
  /** A zero page record holds another fill byte. */
  | 'ZERO_PAGE_FILL'
  /** XBZRLE: the encoding is none of a page's changes. */
  | 'XBZRLE_INVALID'
  /** XBZRLE: the changed page is not here. */
  | 'XBZRLE_PAGE_MISSING'
  /** Postcopy: the page is already here. */
  | 'PAGE_ALREADY_RECEIVED'
  /** Postcopy: the target pages of a host page came out of order, or another page came in between. */
  | 'HOST_PAGE_ORDER';

/** Carries what is known of the input that was refused. */
export interface PageEngineErrorDetails {
  readonly block?: string;
  readonly offsetBytes?: bigint | number;
  readonly lengthBytes?: number;
  readonly flags?: number;
  /** Bytes into the buffer that was decoded. */
  readonly position?: number;
  readonly expected?: string;
  readonly found?: string;
}

/** Reports an input that the page engine refused, by code. */
export class PageEngineError extends Error {
  override readonly name: string = 'PageEngineError';
  readonly code: PageEngineErrorCode;
  readonly details: PageEngineErrorDetails;

  constructor(code: PageEngineErrorCode, message: string, details: PageEngineErrorDetails = {}) {
    super(message);
    this.code = code;
    this.details = details;
  }
}
