import { fsyncSync } from 'node:fs';
import { Pace } from '../convert/pace.ts';
import { writeStream } from '../convert/write-stream.ts';
import { MappedRamWriter } from '../ram/mapped-ram-writer.ts';
import { openStoredGuest } from '../stored/open-guest.ts';
import type { KeptFile } from './kept-file.ts';

/** Keeps a guest as a stream with each page once: as a mapped-ram file first, which is then converted. */
export class StreamWriter extends MappedRamWriter {
  readonly #pages: KeptFile;
  readonly #stream: KeptFile;
  readonly #signal: AbortSignal;

  /**
   * @param pages takes the guest while it comes; the caller removes it
   * @param stream takes the stream
   * @param signal ends the conversion
   */
  constructor(pages: KeptFile, stream: KeptFile, signal: AbortSignal) {
    super(pages.fd);
    this.#pages = pages;
    this.#stream = stream;
    this.#signal = signal;
  }

  override async finish(): Promise<void> {
    await super.finish();
    using opened = await openStoredGuest(this.#pages.temporaryPath, true);
    using pace = new Pace(this.#stream.path, 0, this.#signal, true);
    await writeStream(this.#stream.fd, opened.guest, pace, this.#signal);
    fsyncSync(this.#stream.fd);
  }
}
