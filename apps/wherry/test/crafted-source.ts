import { connect } from 'node:net';
import { ByteWriter } from '@wherry/bytes';
import {
  RAM_SECTION,
  RamFlag,
  SectionType,
  writeCommand,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamList,
  writeRamWord,
  writeSectionHead,
} from '@wherry/stream';
import { incomingPort, type Lab, type RunningHost } from './processes.ts';

const RAM_ID = 1;
const PAGE_BYTES = 4096;

/** A source that is none: it sends what a test wants, to a destination of one RAM block. */
export class CraftedSource {
  readonly #writer = new ByteWriter();

  /** Begins a stream: up to the RAM list, with ADVISE. */
  begin(block: string, lengthBytes: number, pageBytes: number): this {
    const writer = this.#writer;
    writeHeader(writer);
    writeConfiguration(writer, { machineType: 'pc-q35-5.2' });
    writeCommand(writer, { name: 'open-return-path' });
    const ram = { pageSizesSummary: BigInt(pageBytes), targetPageBytes: BigInt(PAGE_BYTES) };
    writeCommand(writer, { name: 'postcopy-advise', ram });
    writeSectionHead(writer, { kind: 'start', sectionId: RAM_ID, ...RAM_SECTION });
    const entry = { name: block, usedBytes: lengthBytes };
    writeRamList(writer, [pageBytes === PAGE_BYTES ? entry : { ...entry, pageBytes }]);
    return this.endSection();
  }

  /** Has the destination forget a range, and run the guest. */
  run(block: string, start: number, length: number): this {
    this.discard(block, start, length);
    writeCommand(this.#writer, { name: 'postcopy-listen' });
    writeCommand(this.#writer, { name: 'postcopy-run' });
    return this;
  }

  discard(block: string, start: number, length: number): this {
    const ranges = [{ start, length }];
    writeCommand(this.#writer, { name: 'postcopy-ram-discard', block, ranges });
    return this;
  }

  /** Begins a section of pages. */
  part(): this {
    writeSectionHead(this.#writer, { kind: 'part', sectionId: RAM_ID });
    return this;
  }

  /** Sends a page that holds one byte's value throughout. */
  page(block: string, offset: number, fill: number): this {
    writeRamWord(this.#writer, offset, fill === 0 ? RamFlag.zero : RamFlag.page);
    this.#writer.counted(block);
    this.#writer.raw(new Uint8Array(fill === 0 ? 1 : PAGE_BYTES).fill(fill));
    return this;
  }

  endSection(): this {
    writeRamWord(this.#writer, 0, RamFlag.eos);
    writeFooter(this.#writer, RAM_ID);
    return this;
  }

  /** Ends the section, RAM and the stream. */
  end(): this {
    this.endSection();
    writeSectionHead(this.#writer, { kind: 'end', sectionId: RAM_ID });
    this.endSection();
    this.#writer.u8(SectionType.eof);
    return this;
  }

  /** Starts a destination and sends it all, then nothing; @returns it */
  async sendTo(lab: Lab, guest: readonly string[]): Promise<RunningHost> {
    const host = await lab.host([...guest, '--incoming', 'defer']);
    await host.client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'postcopy-ram', state: true }],
    });
    const uri = 'tcp:127.0.0.1:0';
    await host.client.execute('migrate-incoming', { uri, 'exit-on-error': false });
    const socket = connect({ host: '127.0.0.1', port: await incomingPort(host) });
    socket.on('error', () => {}).resume();
    socket.write(this.#writer.finish()); // it is open until the host ends
    return host;
  }
}
