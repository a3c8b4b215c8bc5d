/** No message is so long: what is behind that in a line is dropped, so that a file without lines cannot fill memory. */
const MAX_LINE_CHARS = 4096;

/** Splits text that comes in pieces into its lines, each at most 4096 characters of it. */
export async function* linesOf(pieces: AsyncIterable<Uint8Array | string>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let line = '';
  for await (const piece of pieces) {
    const text = typeof piece === 'string' ? piece : decoder.decode(piece, { stream: true });
    const [first = '', ...rest] = text.split('\n');
    line = (line + first).slice(0, MAX_LINE_CHARS);
    for (const next of rest) {
      yield line;
      line = next.slice(0, MAX_LINE_CHARS);
    }
  }
  if (line !== '') yield line;
}
