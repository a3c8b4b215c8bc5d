import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';

/** A pipe for two processes that are yet to start, each of which inherits an end. */
export class Pipe implements Disposable {
  readonly readFd: number;
  readonly writeFd: number;

  /** @param path where it may have a name */
  constructor(path: string) {
    makeFifo(path);
    // Whoever opens both ends does not wait for the other.
    const both = openSync(path, 'r+');
    this.readFd = openSync(path, constants.O_RDONLY);
    this.writeFd = openSync(path, constants.O_WRONLY);
    closeSync(both);
  }

  /** Closes both ends here: the processes have their own. */
  [Symbol.dispose](): void {
    closeSync(this.readFd);
    closeSync(this.writeFd);
  }
}

/** Makes a pipe with a name. */
export function makeFifo(path: string): void {
  execFileSync('mkfifo', [path]);
}
