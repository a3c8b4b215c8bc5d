/**
 * Is one client's connection, either end of it: a socket, a WebSocket or a pair in memory. The
 * optional members let the other side's flow be controlled; a channel over a socket has them all.
 */
export interface QmpChannel {
  /** Queues text to be sent; never throws, and does nothing once closed. */
  send(text: string): void;
  /** Sets the one listener for what arrives; chunks may end anywhere. */
  onData(listener: (chunk: Uint8Array | string) => void): void;
  /** Sets the one listener for the end, whoever caused it; called once. */
  onClose(listener: (error?: Error) => void): void;
  /** Ends the connection after what is queued has been sent. */
  close(): void;
  /** Ends the connection at once, dropping what is queued. Without it, `close` is called. */
  abort?(): void;
  /** Stops reading until `resume`. Without them, what arrives meanwhile is kept, up to a limit. */
  pause?(): void;
  resume?(): void;
  /** Counts the bytes queued and not yet sent. Without it, the queue has no limit. */
  readonly bufferedBytes?: number;
}

class MemoryChannel implements QmpChannel {
  #peer: MemoryChannel | undefined;
  #inbox: string[] = [];
  #inboxBytes = 0;
  #ended = false;
  #closed = false;
  #paused = false;
  #scheduled = false;
  #onData: ((chunk: string) => void) | undefined;
  #onClose: ((error?: Error) => void) | undefined;

  connect(peer: MemoryChannel): void {
    this.#peer = peer;
  }

  get bufferedBytes(): number {
    return this.#peer === undefined ? 0 : this.#peer.#inboxBytes;
  }

  send(text: string): void {
    const peer = this.#peer;
    if (this.#ended || peer === undefined) return;
    peer.#inbox.push(text);
    peer.#inboxBytes += text.length;
    peer.#schedule();
  }

  onData(listener: (chunk: string) => void): void {
    this.#onData = listener;
    this.#schedule();
  }

  onClose(listener: (error?: Error) => void): void {
    this.#onClose = listener;
    this.#schedule();
  }

  close(): void {
    if (this.#peer !== undefined) {
      this.#peer.#ended = true;
      this.#peer.#schedule();
    }
    this.#ended = true;
    this.#inbox = [];
    this.#inboxBytes = 0;
    this.#schedule();
  }

  abort(): void {
    if (this.#peer !== undefined) {
      this.#peer.#inbox = [];
      this.#peer.#inboxBytes = 0;
    }
    this.close();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    while (!this.#paused && this.#onData !== undefined && this.#inbox.length > 0) {
      const text = this.#inbox.shift()!;
      this.#inboxBytes -= text.length;
      this.#onData(text);
    }
    if (this.#ended && this.#inbox.length === 0 && this.#onClose !== undefined && !this.#closed) {
      this.#closed = true;
      this.#onClose();
    }
  }
}

/** Creates two channels connected to each other in memory; delivery is asynchronous. */
export function createChannelPair(): [QmpChannel, QmpChannel] {
  const [left, right] = [new MemoryChannel(), new MemoryChannel()];
  left.connect(right);
  right.connect(left);
  return [left, right];
}
