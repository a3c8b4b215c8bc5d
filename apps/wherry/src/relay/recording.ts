import { type FileHandle, open, readdir } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { CliError } from '../cli-error.ts';

/** Files of one relay: `FILE` holds the stream, further channels and directions are `FILE.NAME`. */
export class Recording {
  readonly #path: string;
  readonly #files = new Map<string, FileHandle>();
  #problem: Error | undefined;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Prepares to record to files that do not exist yet.
   *
   * @throws CliError 2 when there is one of that name, or none can be made there
   */
  static async create(path: string): Promise<Recording> {
    const name = basename(path);
    try {
      const there = await readdir(dirname(path));
      const taken = there.find((file) => file === name || file.startsWith(`${name}.`));
      if (taken !== undefined) throw new Error(`${taken} exists already`);
      const recording = new Recording(path);
      await recording.#open('');
      return recording;
    } catch (error) {
      throw new CliError(`Cannot record to ${path}: ${(error as Error).message}`, 2);
    }
  }

  /** Why a file could not be written; what comes after it is not recorded. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  /** Names the file of a channel: of the stream itself for ''. */
  pathOf(name: string): string {
    return name === '' ? this.#path : `${this.#path}.${name}`;
  }

  /** Appends to the file of a channel; resolves when the bytes may be changed. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    if (this.#problem !== undefined || bytes.length === 0) return;
    try {
      const file = this.#files.get(name) ?? (await this.#open(name));
      for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
    } catch (error) {
      // The migration is worth more than its recording.
      this.#problem = error as Error;
    }
  }

  /** Closes the files. */
  async close(): Promise<void> {
    await Promise.all([...this.#files.values()].map((file) => file.close()));
    this.#files.clear();
  }

  /** Opens a file for its owner alone: it will hold a guest's memory. */
  async #open(name: string): Promise<FileHandle> {
    const file = await open(this.pathOf(name), 'wx', 0o600);
    this.#files.set(name, file);
    return file;
  }
}
