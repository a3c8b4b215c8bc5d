import { StreamError } from '@wherry/stream';

/** Makes the error that says why a RAM list cannot be used. */
export function ramListInvalid(
  expected: string,
  found: string,
  offset: number,
  block = '',
  likely = 'The stream is damaged, or the sender has a capability that changes the list',
): StreamError {
  return new StreamError('RAM_LIST_INVALID', 'The list of RAM blocks is not usable', {
    expected,
    found,
    offset,
    path: block === '' ? ['ram'] : ['ram', block],
    likely,
  });
}
