import { join } from 'node:path';
import { type MigrationParameters, QmpClient } from '@wherry/qmp';
import { expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { SimulatedHost } from '../simulated-host.ts';

/** What either refuses or takes, one after the other. */
const CHANGES: readonly MigrationParameters[] = [
  { 'throttle-trigger-threshold': 0 },
  { 'throttle-trigger-threshold': 101 },
  { 'cpu-throttle-initial': 0 },
  { 'cpu-throttle-initial': 100 },
  { 'cpu-throttle-increment': 0 },
  { 'max-cpu-throttle': 100 },
  { 'max-cpu-throttle': 19 },
  { 'cpu-throttle-initial': 50, 'max-cpu-throttle': 40 },
  { 'max-cpu-throttle': 30, 'cpu-throttle-tailslow': true },
  { 'cpu-throttle-initial': 31 },
  { 'xbzrle-cache-size': 2048 },
  { 'xbzrle-cache-size': 3 * 2 ** 20 },
  { 'xbzrle-cache-size': 2 ** 20 },
  { 'downtime-limit': 2_000_001 },
  { 'multifd-channels': 0 },
  { 'multifd-channels': 16 },
  { 'multifd-zlib-level': 10 },
  { 'multifd-zlib-level': 9 },
  { 'multifd-zstd-level': 21 },
  { 'multifd-zstd-level': 20 },
  { 'multifd-compression': 'zstd' },
  { 'zero-page-detection': 'none' },
];

/** What does not go together. */
const EXCLUSIVE = [
  ['multifd', 'postcopy-ram'],
  ['multifd', 'xbzrle'],
] as const;

/** Answers to the changes, the parameters afterwards, and the statistics of a migration. */
async function ask(
  client: Pick<QmpClient, 'execute' | 'waitForEvent'>,
  migrate: () => Promise<unknown>,
) {
  const answers: string[] = [];
  for (const change of CHANGES) {
    answers.push(
      await client.execute('migrate-set-parameters', change).then(
        () => 'taken',
        (error: Error) => error.message,
      ),
    );
  }
  for (const pair of EXCLUSIVE) {
    const capabilities = pair.map((capability) => ({ capability, state: true }));
    answers.push(
      await client.execute('migrate-set-capabilities', { capabilities }).then(
        () => 'taken',
        (error: Error) => error.message,
      ),
    );
  }
  const parameters = await client.execute('query-migrate-parameters');
  await client.execute('migrate-set-capabilities', {
    capabilities: (['xbzrle', 'auto-converge', 'events'] as const).map((capability) => ({
      capability,
      state: true,
    })),
  });
  await migrate();
  const info = await client.execute('query-migrate');
  return { answers, parameters, info };
}

// The release that the simulated host follows.
peerTest('10.0', 'and a simulated host take and refuse the same settings', async (peer) => {
  await using qemu = await QemuProcess.start(peer, { args: ['-S'] });
  const real = await ask(qemu.qmp, () => qemu.migrate('exec:cat > /dev/null'));
  const path = join(qemu.directory, 'host.qmp');
  await using _ = await SimulatedHost.start(path, ['--ram', 'pc.ram=16M', '--paused']);
  const client = await QmpClient.connect(await connectQmpSocket(path));
  const own = await ask(client, async () => {
    const completed = client.waitForEvent('MIGRATION', ({ data }) => data.status === 'completed');
    await client.execute('migrate', { uri: 'exec:cat > /dev/null' });
    await completed;
  });
  client.close();
  expect(own.answers).toEqual(real.answers);
  expect(real.answers).toContain('taken');
  expect(real.parameters).toMatchObject(own.parameters);
  // All that a paused guest has of it.
  expect(own.info['xbzrle-cache']).toEqual(real.info['xbzrle-cache']);
  expect(own.info['xbzrle-cache']).toMatchObject({ pages: 0 });
  expect(real.info['cpu-throttle-percentage']).toBeUndefined();
  expect(own.info['cpu-throttle-percentage']).toBeUndefined();
});
