import { StreamError } from '@wherry/stream';

/** Makes the error that says why a live section cannot be read. */
export function liveInvalid(
  idstr: string,
  expected: string,
  found: string,
  offset: number,
): StreamError {
  return new StreamError('LIVE_SECTION_INVALID', `A section of ${idstr} is not usable`, {
    expected,
    found,
    offset,
    path: [idstr],
    likely: 'The stream is damaged before this point, or a newer release wrote it',
  });
}
