import { fsyncSync } from 'node:fs';
import { StoredSource } from '@wherry/migration';
import { connect } from '@wherry/transport';
import { MappedRamWriter } from '../ram/mapped-ram-writer.ts';
import { openStoredGuest } from '../stored/open-guest.ts';
import { wallClock } from '../wall-clock.ts';
import type { KeptFile } from './kept-file.ts';

/** Keeps a guest as a stream with each page once: a mapped-ram file first, which is then sent to a file. */
export class StreamWriter extends MappedRamWriter {
  readonly #pages: KeptFile;
  readonly #stream: KeptFile;

  /**
   * @param pages takes the guest while it comes; the caller removes it
   * @param stream takes the stream
   */
  constructor(pages: KeptFile, stream: KeptFile) {
    super(pages.fd);
    this.#pages = pages;
    this.#stream = stream;
  }

  override async finish(): Promise<void> {
    await super.finish();
    using opened = await openStoredGuest(this.#pages.temporaryPath, true);
    const source = new StoredSource({
      guest: opened.guest,
      transport: await connect({ kind: 'file', path: this.#stream.temporaryPath, offset: 0 }),
      clock: wallClock,
      returnPath: false,
      postcopy: false,
    });
    if ((await source.run()) !== 'completed') throw source.error;
    fsyncSync(this.#stream.fd);
  }
}
