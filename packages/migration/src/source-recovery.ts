import { RESUME_ACK_VALUE } from '@wherry/stream';
import { MigrationError } from './migration-error.ts';
import type { SourceConnection } from './source-connection.ts';
import type { SourceFrames } from './source-frames.ts';

interface RecoverableBlock {
  readonly name: string;
  readonly pageCount: number;
}

/** What a recovery asks of the source's RAM and of who sends it: a guest's own, or that of a file. */
export interface RecoverableRam<Block extends RecoverableBlock> {
  readonly blocks: readonly Block[];
  block(name: string): Block | undefined;
}
export interface RecoverableSender<Block extends RecoverableBlock> {
  /** Forgets what went over the connection that is lost. */
  reconnect(): void;
  /** Owes of a block what is missing in a bitmap of its target pages. */
  oweMissing(block: Block, received: Uint8Array): void;
}

/** Bytes of a block's bitmap on the return path: whole words of 8. @see ramblock_recv_bitmap_send in QEMU's migration/ram.c */
export function recvBitmapBytes(pageCount: number): number {
  return Math.ceil(pageCount / 64) * 8;
}

/**
 * The source's half of a recovery: asks for what the destination has of each RAM block, owes the rest,
 * and has the destination acknowledge. Until then no page is sent.
 *
 * @see postcopy_do_resume in QEMU's migration/migration.c
 */
export class SourceRecovery<Block extends RecoverableBlock> {
  readonly #ram: RecoverableRam<Block>;
  readonly #sender: RecoverableSender<Block>;
  readonly #awaited: Set<string>;
  readonly #bitmaps = Promise.withResolvers<void>();
  readonly #ack = Promise.withResolvers<void>();
  #isAckDue = false;

  constructor(ram: RecoverableRam<Block>, sender: RecoverableSender<Block>) {
    this.#ram = ram;
    this.#sender = sender;
    this.#awaited = new Set(ram.blocks.map(({ name }) => name));
    for (const { promise } of [this.#bitmaps, this.#ack]) promise.catch(() => {}); // nobody may wait
  }

  /** Goes through the handshake; resolves when pages may be sent. */
  async run(
    { output, signal, preempt }: SourceConnection,
    frames: Pick<SourceFrames, 'command'>,
  ): Promise<void> {
    signal.addEventListener('abort', () => {
      this.#bitmaps.reject(signal.reason);
      this.#ack.reject(signal.reason);
    });
    this.#sender.reconnect();
    for (const block of this.#awaited) frames.command({ name: 'recv-bitmap', block });
    await output.flush();
    await this.#bitmaps.promise;
    if (preempt !== undefined) await preempt.ready();
    this.#isAckDue = true;
    frames.command({ name: 'postcopy-resume' });
    await output.flush();
    await this.#ack.promise;
  }

  /** Takes the bitmap of a block. @throws MigrationError `RECOVERY_INVALID` */
  takeBitmap(name: string, bitmap: Uint8Array): void {
    const block = this.#ram.block(name);
    if (block === undefined || !this.#awaited.delete(name)) {
      throw invalid(
        'RECV_BITMAP',
        block === undefined
          ? `RAM block '${name}' not found`
          : `The bitmap of RAM block '${name}' comes twice`,
      );
    }
    const expected = recvBitmapBytes(block.pageCount);
    if (bitmap.length !== expected) {
      const [found, own] = [bitmap.length, expected].map((bytes) => bytes.toString(16));
      throw invalid(
        'RECV_BITMAP',
        `ramblock '${name}' bitmap size mismatch (0x${found} != 0x${own})`,
      );
    }
    this.#sender.oweMissing(block, bitmap);
    if (this.#awaited.size === 0) this.#bitmaps.resolve();
  }

  /** Takes the answer to POSTCOPY_RESUME. @throws MigrationError `RECOVERY_INVALID` */
  takeAck(value: number): void {
    if (!this.#isAckDue) throw invalid('RESUME_ACK', 'RESUME_ACK without POSTCOPY_RESUME');
    if (value !== RESUME_ACK_VALUE)
      throw invalid('RESUME_ACK', `illegal resume_ack value ${value}`);
    this.#ack.resolve();
  }
}

function invalid(message: string, problem: string): MigrationError {
  return new MigrationError('RECOVERY_INVALID', problem, {
    path: ['return path', message],
    likely: 'The two sides do not belong to one migration: see where each connects or listens',
  });
}
