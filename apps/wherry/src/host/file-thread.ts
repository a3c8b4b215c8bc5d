import { constants, openSync, readSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { ShortRead } from '@wherry/migration';
import type { FileThreadCall, FileThreadInit, FileThreadReply } from './file-threads.ts';

// The whole of a thread that writes or reads pages of guest memory at their places in a file.

const { path, mode, direct } = workerData as FileThreadInit;
const { O_DIRECT, O_RDONLY, O_WRONLY } = constants;

function reply(message: FileThreadReply): void {
  parentPort?.postMessage(message);
}

/** Runs pieces through; returns one at which the file ended. */
function run(fd: number, pieces: FileThreadCall): ShortRead | undefined {
  for (const { bytes, offset } of pieces) {
    for (let done = 0; done < bytes.length; ) {
      const [at, length] = [offset + done, bytes.length - done];
      const count =
        mode === 'write'
          ? writeSync(fd, bytes, done, length, at)
          : readSync(fd, bytes, done, length, at);
      done += count;
      // Direct I/O goes on at whole blocks alone, and ends elsewhere only where the file does.
      if (count === 0 || (direct && mode === 'read' && done % 512 !== 0)) {
        return { offset, expectedBytes: bytes.length, foundBytes: done };
      }
    }
  }
  return undefined;
}

function answer(work: () => ShortRead | undefined): void {
  try {
    const short = work();
    reply(short === undefined ? {} : { short });
  } catch (error) {
    reply({ error: (error as Error).message });
  }
}

let fd = -1;
answer(() => {
  fd = openSync(path, (mode === 'write' ? O_WRONLY : O_RDONLY) | (direct ? O_DIRECT : 0));
  return undefined;
});
parentPort?.on('message', (pieces: FileThreadCall) => answer(() => run(fd, pieces)));
