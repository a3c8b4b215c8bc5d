import { type FileHandle, lstat, open, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CliError } from '../cli-error.ts';

/** A file that appears under its name only when it is whole: written beside it, synced, then renamed. */
export class KeptFile {
  readonly path: string;
  readonly #temporaryPath: string;
  readonly #file: FileHandle;
  #isKept = false;

  private constructor(path: string, temporaryPath: string, file: FileHandle) {
    this.path = path;
    this.#temporaryPath = temporaryPath;
    this.#file = file;
  }

  /**
   * Creates the file under a temporary name, readable by its owner alone: it will hold a guest's memory.
   *
   * @throws CliError 2 when it cannot be made there, or the name is taken by anything but a file
   */
  static async create(path: string): Promise<KeptFile> {
    try {
      const target = await resolveTarget(path);
      const temporary = join(dirname(target), `.${basename(target)}.${process.pid}.part`);
      return new KeptFile(target, temporary, await open(temporary, 'wx+', 0o600));
    } catch (error) {
      if (error instanceof CliError) throw error;
      throw new CliError(`Cannot write ${path}: ${reasonOf(error)}`, 2);
    }
  }

  /** The open file, for reading and writing. */
  get fd(): number {
    return this.#file.fd;
  }

  /** Where the file is until it has its name. */
  get temporaryPath(): string {
    return this.#temporaryPath;
  }

  /**
   * Gives the file its name; what was there before is replaced in one step.
   *
   * @throws CliError 1 when it cannot be renamed: it stays under the temporary name, as the guest may live in it alone
   */
  async keep(): Promise<void> {
    this.#isKept = true;
    try {
      await this.#file.close();
      await rename(this.#temporaryPath, this.path);
      const folder = await open(dirname(this.path));
      await folder.sync().finally(() => folder.close());
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new CliError(`The whole guest is in ${this.#temporaryPath}: ${reason}; move it`, 1);
    }
  }

  /** Leaves the file under its temporary name: there is no other copy of what is in it. */
  async leave(): Promise<void> {
    this.#isKept = true;
    await this.#file.close();
  }

  /** Removes the file, nothing is left of it; does nothing after {@link KeptFile.keep}. */
  async discard(): Promise<void> {
    if (this.#isKept) return;
    await this.#file.close().catch(() => {});
    await rm(this.#temporaryPath, { force: true });
  }
}

/** Follows links, so that the rename replaces the file and not a link to it. */
async function resolveTarget(path: string): Promise<string> {
  if (path === '' || path.endsWith('/')) throw new CliError(`Cannot write ${path}: name a file`, 2);
  const target = await realpath(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return path;
    throw error;
  });
  const there = await lstat(target).catch(() => undefined);
  if (there !== undefined && !there.isFile()) {
    const what = there.isDirectory() ? 'a directory' : 'no regular file';
    throw new CliError(`Cannot write ${path}: it is ${what}; name another file`, 2);
  }
  return target;
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'there is no such folder; make it first';
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied; choose another folder';
  return message;
}
