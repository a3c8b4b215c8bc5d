import type { ByteReader, Parser } from '@wherry/bytes';

/**
 * Reads one body of a live section, the footer excluded, and adds to the section's summary.
 *
 * @returns whether it ended; otherwise the reader stands before something whose end only the footer tells
 * @throws StreamError `LIVE_SECTION_INVALID`
 */
export type LiveFormat = (reader: ByteReader, kind: 'start' | 'part' | 'end') => Parser<boolean>;
