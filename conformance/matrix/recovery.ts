import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '@wherry/qmp';
import { expect } from 'vitest';
import type { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { WherryCommand } from '../wherry-command.ts';
import { startPostcopy } from './received.ts';
import type { Sending } from './sent.ts';

/** A second monitor: a destination whose guest waits for a page answers to out-of-band commands alone. */
export const secondMonitor: readonly string[] = ['-qmp', 'unix:second.sock,server=on,wait=off'];

/** Breaks a postcopy from a real source twice, and has it go on. */
export async function breakAndRecover(
  source: QemuProcess,
  receiver: WherryCommand,
  uri: string,
): Promise<void> {
  await startPostcopy(source);
  for (let breaks = 1; breaks <= 2; breaks++) {
    const { ram } = await source.waitForMigration(['postcopy-active']);
    // Behind the package, which is half as long; a break before it would end the migration.
    const behind = Number(ram!.transferred) + 60_000;
    await source.waitForMigrationInfo((info) => Number(info.ram!.transferred) > behind, 'go on');
    await source.qmp.execute('migrate-pause');
    await source.waitForMigration(['postcopy-paused']);
    await receiver.says(new RegExp(`(Paused[^]*){${breaks}}`));
    await source.qmp.execute('migrate', { uri, resume: true });
  }
}

/** Sends by postcopy over a link that is cut, and again with `--recover`; both with these options. */
export async function sendAndRecover(
  { file, uri, destination }: Sending,
  ...options: readonly string[]
): Promise<void> {
  const path = (name: string): string => join(destination.directory, name);
  const qmp = await QmpClient.connect(await connectQmpSocket(path('second.sock')), {
    enable: ['oob'],
  });
  let sentBytes = 0;
  const link = createServer((near) => {
    const far = connect(uri.slice('unix:'.length));
    far.on('error', () => near.destroy()).pipe(near);
    near
      .on('error', () => far.destroy())
      .on('data', (bytes) => {
        sentBytes += bytes.length;
        far.write(bytes);
        if (sentBytes < 400_000) return;
        near.destroy();
        far.destroy();
      });
  });
  await once(link.listen(path('link.sock')), 'listening');
  await using cut = WherryCommand.start([
    ...['send', file, `unix:${path('link.sock')}`, '--postcopy', ...options],
  ]);
  const { exitCode, stderr } = await cut.ended;
  link.close();
  expect(exitCode, stderr).toBe(3);
  // A destination takes its time to notice the break.
  for (let attempt = 1; ; attempt++) {
    try {
      await qmp.execute('migrate-recover', { uri: 'unix:again.sock' }, { oob: true });
      break;
    } catch (error) {
      if (attempt === 100) throw error;
      await sleep(50);
    }
  }
  qmp.close();
  await using again = WherryCommand.start([
    ...['send', file, `unix:${path('again.sock')}`, '--recover', '--json', ...options],
  ]);
  await again.succeeded();
}
