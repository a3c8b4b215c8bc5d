import { JsonStream, type QmpChannel } from '../src/index.ts';

/** A channel that can send what is no text. */
export interface ByteChannel extends QmpChannel {
  sendBytes(bytes: Uint8Array): void;
}

const LAST_ID = 'the last one';
const LAST = `\n${JSON.stringify({ execute: 'no-such-command', id: LAST_ID })}\n`;

function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/**
 * Sends `input`, one character a byte, on a fresh connection.
 *
 * @param isRaw sends it before negotiation
 * @returns the replies to it, events left out
 */
export async function replay(
  channel: ByteChannel,
  input: string,
  isRaw: boolean,
): Promise<Record<string, unknown>[]> {
  const stream = new JsonStream();
  const replies: Record<string, unknown>[] = [];
  const done = Promise.withResolvers<void>();
  channel.onClose(() => done.reject(new Error('the connection was closed')));
  channel.onData((chunk) => {
    stream.push(chunk);
    for (let item = stream.next(); item !== undefined; item = stream.next()) {
      if (item.kind === 'error') return done.reject(new Error(item.message));
      const message = item.value as Record<string, unknown>;
      if ('QMP' in message) {
        if (!isRaw) channel.send('{"execute": "qmp_capabilities", "id": "setup"}\n');
        channel.sendBytes(latin1(input));
        channel.send(LAST);
      } else if (message['id'] === LAST_ID) {
        done.resolve();
      } else if (!('event' in message) && message['id'] !== 'setup') {
        replies.push(message);
      }
    }
  });
  await done.promise;
  channel.close();
  return replies;
}
