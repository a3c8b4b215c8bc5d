const FLUSH_CHARS = 64 * 1024;

/**
 * Writes pieces of text, waiting whenever the reader is slow.
 *
 * A reader that has enough (`| head`) closes the pipe: that ends the writing, and is no error.
 */
export async function writeAll(
  output: NodeJS.WritableStream,
  pieces: Iterable<string>,
): Promise<void> {
  let failure: NodeJS.ErrnoException | undefined;
  const onError = (error: NodeJS.ErrnoException): void => {
    failure = error;
  };
  output.on('error', onError);
  const flush = async (text: string): Promise<void> => {
    if (text === '' || output.write(text) || failure !== undefined) return;
    await nextOf(output, ['drain', 'close', 'error']);
  };
  try {
    let text = '';
    for (const piece of pieces) {
      text += piece;
      if (text.length < FLUSH_CHARS) continue;
      await flush(text);
      text = '';
      if (failure !== undefined) break;
    }
    if (failure === undefined) {
      await flush(text);
      // The error of the last write arrives before its callback.
      await new Promise<void>((resolve) => output.write('', () => resolve()));
    }
  } finally {
    // Left in place after a closed pipe: Node reports a failed write once more at exit.
    if (failure === undefined) output.off('error', onError);
  }
  if (failure !== undefined && failure.code !== 'EPIPE') throw failure;
}

/** Waits for the first of some events. */
function nextOf(output: NodeJS.WritableStream, events: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      for (const event of events) output.off(event, end);
      resolve();
    };
    for (const event of events) output.on(event, end);
  });
}

/** Escapes control characters but newlines: names in a stream must not steer the terminal that shows them. */
export function escapeControls(text: string): string {
  return text.replace(
    /(?!\n)\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
