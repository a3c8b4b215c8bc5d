import { Worker } from 'node:worker_threads';
import {
  type Capabilities,
  type FilePiece,
  MigrationError,
  type PageFile,
  type Parameters,
  type ShortRead,
} from '@wherry/migration';
import type { MigrationUri } from '@wherry/transport';

/** What a thread is started with. */
export interface FileThreadInit {
  readonly path: string;
  readonly mode: 'write' | 'read';
  /** Past the system's cache of files. */
  readonly direct: boolean;
}

/** Pieces for a thread; their bytes lie in shared memory. */
export type FileThreadCall = readonly FilePiece[];

/** What a thread answers: first, when it has opened the file, then to each call. */
export type FileThreadReply = { readonly short?: ShortRead } | { readonly error: string };

class FileThread {
  readonly #name: string;
  readonly #worker: Worker;
  #answer = Promise.withResolvers<ShortRead | undefined>();
  #failure: MigrationError | undefined;

  constructor(init: FileThreadInit, id: number) {
    this.#name = `file channel ${id}`;
    this.#worker = new Worker(new URL('./file-thread.js', import.meta.url), { workerData: init });
    this.#answer.promise.catch(() => {}); // whoever waits for it hears of it
    this.#worker.on('message', (reply: FileThreadReply) => {
      if ('error' in reply) this.#fail(reply.error);
      else this.#answer.resolve(reply.short);
    });
    this.#worker.on('error', ({ message }) => this.#fail(message));
    this.#worker.on('exit', () => this.#fail('its thread has ended'));
  }

  #fail(problem: string): void {
    this.#failure ??= new MigrationError('CONNECTION_LOST', `The ${this.#name} failed`, {
      found: problem,
      path: [this.#name],
      likely:
        'The disk is full or failed; with direct-io also a file system that has none (EINVAL)',
    });
    this.#answer.reject(this.#failure);
  }

  /** Resolves when the file is open. */
  async opened(): Promise<void> {
    await this.#answer.promise;
  }

  run(pieces: FileThreadCall): Promise<ShortRead | undefined> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#answer = Promise.withResolvers();
    this.#worker.postMessage(pieces);
    return this.#answer.promise;
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

/**
 * Opens the threads of a migration with `multifd` and `mapped-ram`; undefined for any other.
 *
 * @throws MigrationError naming the channel that cannot open the file
 */
export async function openFileThreads(
  uri: MigrationUri,
  mode: 'write' | 'read',
  capabilities: Capabilities,
  parameters: Parameters,
): Promise<FileThreads | undefined> {
  const isWanted = capabilities.has('multifd') && capabilities.has('mapped-ram');
  if (!isWanted || uri.kind !== 'file') return undefined;
  return FileThreads.open(uri.path, mode, parameters);
}

/**
 * Writes or reads a file from several threads, as QEMU's multifd channels do with mapped-ram: each has a
 * descriptor of its own, past the system's cache with `direct-io`.
 *
 * @see file_write_ramblock_iov and multifd_file_recv_data in QEMU's migration/file.c
 */
class FileThreads implements PageFile {
  readonly #threads: readonly FileThread[];

  private constructor(threads: readonly FileThread[]) {
    this.#threads = threads;
  }

  /** Starts as many threads as there are channels. @throws MigrationError naming the channel that cannot open the file */
  static async open(
    path: string,
    mode: 'write' | 'read',
    parameters: Pick<Parameters, 'multifd-channels' | 'direct-io'>,
  ): Promise<FileThreads> {
    const init = { path, mode, direct: parameters['direct-io'] };
    const threads = new FileThreads(
      Array.from({ length: parameters['multifd-channels'] }, (_, id) => new FileThread(init, id)),
    );
    try {
      await Promise.all(threads.#threads.map((thread) => thread.opened()));
    } catch (error) {
      await threads.close();
      throw error;
    }
    return threads;
  }

  async write(pieces: readonly FilePiece[]): Promise<void> {
    await this.#run(pieces);
  }

  async read(pieces: readonly FilePiece[]): Promise<ShortRead | undefined> {
    return (await this.#run(pieces)).find((short) => short !== undefined);
  }

  /** Gives each thread about as many bytes; resolves, or rejects, when none of them works any more. */
  async #run(pieces: readonly FilePiece[]): Promise<(ShortRead | undefined)[]> {
    const total = pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
    const shares: FilePiece[][] = this.#threads.map(() => []);
    let before = 0;
    for (const piece of pieces) {
      shares[Math.floor((before / total) * shares.length)]!.push(piece);
      before += piece.bytes.length;
    }
    const runs = this.#threads.flatMap((thread, i) =>
      shares[i]!.length === 0 ? [] : [thread.run(shares[i]!)],
    );
    const results = await Promise.allSettled(runs);
    return results.map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }
}
