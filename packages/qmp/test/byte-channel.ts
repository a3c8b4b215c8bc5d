import type { QmpChannel } from '../src/index.ts';
import type { ByteChannel } from './replay.ts';

type Chunk = Uint8Array | string;

/** One end of a pair in memory that carries bytes and text as they are. */
class End implements ByteChannel {
  peer: End | undefined;
  #data: (chunk: Chunk) => void = () => {};
  #close: () => void = () => {};

  send(text: string): void {
    this.#post(text);
  }

  sendBytes(bytes: Uint8Array): void {
    this.#post(bytes);
  }

  onData(listener: (chunk: Chunk) => void): void {
    this.#data = listener;
  }

  onClose(listener: () => void): void {
    this.#close = listener;
  }

  close(): void {
    queueMicrotask(() => {
      this.#close();
      if (this.peer !== undefined) this.peer.#close();
    });
  }

  #post(chunk: Chunk): void {
    queueMicrotask(() => {
      if (this.peer !== undefined) this.peer.#data(chunk);
    });
  }
}

/** Connects a new client to a server. */
export function connectTo(server: { accept(channel: QmpChannel): void }): ByteChannel {
  const [near, far] = [new End(), new End()];
  near.peer = far;
  far.peer = near;
  queueMicrotask(() => server.accept(far));
  return near;
}
