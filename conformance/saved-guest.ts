import { type MigrationCapability, QmpClient } from '@wherry/qmp';
import { expect } from 'vitest';
import { connectQmpSocket } from './qmp-socket.ts';

/** Has a simulated host write its guest to a URI, with capabilities. */
export async function saveGuest(
  qmp: string,
  uri: string,
  capabilities: readonly MigrationCapability[],
): Promise<void> {
  const client = await QmpClient.connect(await connectQmpSocket(qmp));
  await client.execute('migrate-set-capabilities', {
    capabilities: (['events', ...capabilities] as const).map((capability) => ({
      capability,
      state: true,
    })),
  });
  const end = client.waitForEvent(
    'MIGRATION',
    ({ data }) => ['completed', 'failed'].includes(data.status),
    { timeoutMs: 20_000 },
  );
  await client.execute('migrate', { uri });
  expect((await end).data.status).toBe('completed');
  client.close();
}
