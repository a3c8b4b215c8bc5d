import { connect, createServer, type Socket } from 'node:net';
import { ByteReader, runParser } from '@wherry/bytes';
import {
  type ByteRange,
  type Command,
  type RamListEntry,
  RamRecordReader,
  type ReturnPathMessage,
  readCommand,
  readConfiguration,
  readFooter,
  readHeader,
  readItem,
  readRamList,
  readReturnPathMessage,
} from '@wherry/stream';
import type { Lab } from './processes.ts';

/** A relay between a source and a destination that keeps what goes through it. */
export class Link {
  readonly uri: string;
  readonly #close: () => void;
  readonly #sent: Buffer[] = [];
  readonly #answered: Buffer[] = [];

  private constructor(uri: string, close: () => void) {
    this.uri = uri;
    this.#close = close;
  }

  /** Opens a link to a port; close it before the lab. */
  static async open(lab: Lab, port: number): Promise<Link> {
    const sockets = new Set<Socket>();
    const path = await lab.path('link');
    const server = createServer({ allowHalfOpen: true }, (near) => {
      const far = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
      for (const [from, to, kept] of [
        [near, far, link.#sent],
        [far, near, link.#answered],
      ] as const) {
        sockets.add(from);
        from.on('data', (chunk) => kept.push(chunk));
        from.on('error', () => to.destroy()).pipe(to);
      }
    });
    const link = new Link(`unix:${path}`, () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return link;
  }

  /** Breaks what goes through it, and takes nothing more. */
  cut(): void {
    this.#close();
  }

  /** The stream, from the source. */
  get sent(): Buffer {
    return Buffer.concat(this.#sent);
  }

  /** The destination's whole messages on the return path. */
  get answers(): ReturnPathMessage[] {
    const reader = ByteReader.over(Buffer.concat(this.#answered));
    const messages: ReturnPathMessage[] = [];
    while (reader.available > 0) messages.push(runParser(readReturnPathMessage(reader), reader));
    return messages;
  }
}

/** A page as it went over the link. */
export interface SentPage {
  readonly block: string;
  /** In its block. */
  readonly offset: number;
  readonly isZero: boolean;
}

/** What went over the link in a postcopy that came to its end. */
export interface PostcopyStream {
  readonly advice: Extract<Command, { readonly name: 'postcopy-advise' }>['ram'];
  readonly list: readonly RamListEntry[];
  readonly discards: readonly { readonly block: string; readonly ranges: readonly ByteRange[] }[];
  /** Pages sent while the guest was at the source, oldest first. */
  readonly before: readonly SentPage[];
  /** Pages sent behind the package. */
  readonly after: readonly SentPage[];
}

/** Reads a recorded postcopy; the package is passed over. */
export function readPostcopyStream(bytes: Uint8Array): PostcopyStream {
  const reader = ByteReader.over(bytes);
  const records = new RamRecordReader(4096);
  const discards: { block: string; ranges: readonly ByteRange[] }[] = [];
  const [before, after]: [SentPage[], SentPage[]] = [[], []];
  let advice: PostcopyStream['advice'];
  let list: RamListEntry[] = [];
  let pages = before;
  runParser(readHeader(reader), reader);
  runParser(readConfiguration(reader), reader);
  for (;;) {
    const item = runParser(readItem(reader), reader);
    if (item.type === 'eof') return { advice, list, discards, before, after };
    if (item.type === 'command') {
      const command = runParser(readCommand(reader), reader);
      if (command.name === 'postcopy-advise') advice = command.ram;
      if (command.name === 'postcopy-ram-discard') discards.push(command);
      if (command.name === 'packaged') {
        reader.skip(command.lengthBytes);
        pages = after;
      }
      continue;
    }
    for (;;) {
      const record = runParser(records.read(reader), reader);
      if (record.kind === 'eos') break;
      if (record.kind === 'mem-size') {
        list = runParser(readRamList(reader, record.totalBytes, { advised: true }), reader);
      } else if ('block' in record) {
        const { block, pageOffset: offset, kind, dataBytes } = record;
        pages.push({ block, offset, isZero: kind === 'zero' });
        reader.skip(dataBytes);
      }
    }
    runParser(readFooter(reader, item.head.sectionId, 'ram'), reader);
  }
}
