import { setTimeout as sleep } from 'node:timers/promises';
import type { QmpClient } from '@wherry/qmp';

/** Unlimited to any real link, and within what every QEMU takes. */
const MAX_BANDWIDTH = 100 * 2 ** 30;
const MIGRATION_MS = 120_000;

/** One host of a migration, real or simulated. */
export interface Host {
  readonly qmp: QmpClient;
  /** Of a Wherry host, to look at its memory. */
  readonly pid?: number | undefined;
  close(): Promise<void>;
}

/** What a guest is, on every host. */
export interface Guest {
  readonly ramBytes: number;
  /** What its pages hold. */
  readonly content: Content;
  /** It runs and does next to nothing, with a megabyte of device state; otherwise it is paused. */
  readonly idle?: boolean;
  /** The destination touched all of its memory at the start. */
  readonly preallocated?: boolean;
}

/** What the pages of a guest hold; `mixed`: a tenth of them random bytes, the others zeroes. */
export type Content = 'random' | 'zero' | 'mixed';

/** How one migration went. */
export interface MigrationTimes {
  /** `total-time` of the source's query-migrate. */
  readonly totalMs: number;
  /** From `migrate` until both sides have completed, on this process's clock. */
  readonly wallMs: number;
  readonly downtimeMs: number;
  readonly normalPages: number;
  readonly zeroPages: number;
}

/**
 * Migrates a guest over tcp on this machine, as fast as it goes, with a return path; the same
 * commands drive every host.
 *
 * @param channels of multifd, which is off at 0
 * @throws Error when a side does not complete
 */
export async function runMigration(
  source: Host,
  destination: Host,
  channels = 0,
): Promise<MigrationTimes> {
  const capabilities = [
    { capability: 'events', state: true },
    { capability: 'return-path', state: true },
    { capability: 'multifd', state: channels > 0 },
  ] as const;
  for (const { qmp } of [source, destination]) {
    await qmp.execute('migrate-set-capabilities', { capabilities });
    if (channels > 0) await qmp.execute('migrate-set-parameters', { 'multifd-channels': channels });
  }
  await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': MAX_BANDWIDTH });
  await destination.qmp.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const uri = `tcp:127.0.0.1:${await portOf(destination)}`;
  const ends = [source, destination].map((host) => untilEnded(host));
  const startedAt = performance.now();
  await source.qmp.execute('migrate', { uri });
  const statuses = await Promise.all(ends);
  const wallMs = performance.now() - startedAt;
  let info = await source.qmp.execute('query-migrate');
  // QEMU takes the times after it has said that it is through.
  while (statuses[0] === 'completed' && Number(info['total-time']) === 0) {
    await sleep(1);
    info = await source.qmp.execute('query-migrate');
  }
  const { ram } = info;
  if (statuses.some((status) => status !== 'completed') || ram === undefined) {
    throw new Error(
      `source ${statuses[0]}, destination ${statuses[1]}: ${info['error-desc'] ?? 'no reason given'}`,
    );
  }
  return {
    totalMs: Number(info['total-time']),
    wallMs,
    downtimeMs: Number(info.downtime),
    normalPages: Number(ram.normal),
    zeroPages: Number(ram.duplicate),
  };
}

async function untilEnded({ qmp }: Host): Promise<string> {
  const isEnd = (status: string): boolean =>
    status === 'completed' || status === 'failed' || status === 'cancelled';
  const event = await qmp.waitForEvent('MIGRATION', ({ data }) => isEnd(data.status), {
    timeoutMs: MIGRATION_MS,
  });
  return event.data.status;
}

async function portOf({ qmp }: Host): Promise<string> {
  const addresses = (await qmp.execute('query-migrate'))['socket-address'] ?? [];
  for (const address of addresses) if (address.type === 'inet') return address.port;
  throw new Error('query-migrate of the destination names no port');
}
