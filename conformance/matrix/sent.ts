import { join } from 'node:path';
import { expect } from 'vitest';
import { type MigrationSettings, QemuProcess } from '../qemu.ts';
import { WherryCommand } from '../wherry-command.ts';
import type { Bench, Way } from './cell.ts';
import { makeFifo, Pipe } from './pipe.ts';
import { expectGoesOn } from './received.ts';

/** How a kept guest goes into QEMU. */
export interface SentOptions {
  /** `tcp` unless told. */
  readonly channel?: 'tcp' | 'unix' | 'exec' | 'fd' | 'file';
  readonly sendArgs?: readonly string[];
  /** What the QEMU is set to that saves the guest beforehand. */
  readonly save?: MigrationSettings;
  /** What to do at that QEMU before it saves. */
  readonly before?: (source: QemuProcess) => Promise<void>;
  /** Sends by other steps than one `wherry send`. */
  readonly send?: (sending: Sending) => Promise<void>;
  /** What to look for where the guest has gone on. */
  readonly check?: (destination: QemuProcess) => Promise<void>;
}

/** A kept guest, and the QEMU that waits for it. */
export interface Sending {
  readonly bench: Bench;
  readonly file: string;
  readonly uri: string;
  readonly destination: QemuProcess;
}

/** Has a guest saved, and `wherry send` put it into a waiting QEMU, where it goes on. */
export function sent(options: SentOptions = {}): Way {
  return async (bench) => {
    const { peer, machine, folder, mode } = bench;
    const { channel = 'tcp', sendArgs = [], save = {} } = options;
    await using source = await QemuProcess.start(peer, machine);
    await source.waitForPass(5);
    await options.before?.(source);
    const file = join(folder, 'kept');
    await source.migrate(`exec:cat > ${file}`, save);
    using pipe = channel === 'fd' ? new Pipe(join(folder, 'pipe')) : undefined;
    await using destination = await QemuProcess.start(peer, {
      ...machine,
      incoming: 'defer',
      ...(pipe === undefined ? {} : { fds: [pipe.readFd] }),
    });
    const settings = mode.settings ?? {};
    const send = async (uri: string): Promise<void> => {
      if (options.send !== undefined) return options.send({ bench, file, uri, destination });
      const fds = pipe === undefined ? [] : [pipe.writeFd];
      await using command = WherryCommand.start(
        ['send', file, uri, '--json', ...sendArgs],
        folder,
        fds,
      );
      expect(JSON.parse(await command.succeeded())).toMatchObject({
        status: 'completed',
      });
    };
    if (channel === 'file') {
      await send(`file:${folder}/sent`);
      await destination.listen(`file:${folder}/sent`, settings);
    } else {
      await send(await listen(destination, channel, folder, settings));
    }
    await destination.waitForMigration();
    await expectGoesOn(destination, source.marks.at(-1)!.pass);
    await options.check?.(destination);
  };
}

/** Has QEMU wait. @returns the URI that leads to it */
async function listen(
  destination: QemuProcess,
  channel: Exclude<NonNullable<SentOptions['channel']>, 'file'>,
  folder: string,
  settings: MigrationSettings,
): Promise<string> {
  switch (channel) {
    case 'tcp':
      return `tcp:127.0.0.1:${await destination.listenTcp(settings)}`;
    case 'unix':
      await destination.listen(`unix:${folder}/in.sock`, settings);
      return `unix:${folder}/in.sock`;
    case 'exec':
      makeFifo(`${folder}/fifo`);
      await destination.listen(`exec:cat ${folder}/fifo`, settings);
      return `exec:cat > ${folder}/fifo`;
    case 'fd':
      await destination.listen('fd:3', settings);
      return 'fd:3';
  }
}
