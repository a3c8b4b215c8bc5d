import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type MigrationSchema,
  migrationSchema,
  QmpClient,
  type QmpDisconnectReason,
  QmpServer,
} from '../src/index.ts';
import { connectUnix, socketChannel } from './socket-channel.ts';

const directory = mkdtempSync(join(tmpdir(), 'qmp-test-'));
const path = join(directory, 'qmp.sock');
const gone: QmpDisconnectReason[] = [];
const qmp: QmpServer<MigrationSchema> = new QmpServer({
  schema: migrationSchema,
  version: { qemu: { major: 11, minor: 1, micro: 0 }, package: '' },
  commands: {
    'query-status': () => ({ running: true, status: 'running' }),
    migrate: () => qmp.emit('MIGRATION', { status: 'setup' }),
    quit: (_args, { afterReply }) => afterReply(() => qmp.close()),
  },
  limits: { maxPendingOutputBytes: 100_000 },
  onDisconnect: (reason) => void gone.push(reason),
});
let listener: Server;

beforeAll(async () => {
  listener = createServer((socket) => qmp.accept(socketChannel(socket)));
  await new Promise<void>((resolve) => void listener.listen(path, resolve));
});

afterAll(() => {
  listener.close();
  rmSync(directory, { recursive: true });
});

describe('over a unix socket', () => {
  it('serves several clients; quit is answered before the connections end', async () => {
    const clients = await Promise.all([1, 2, 3].map(() => QmpClient.connect(connectUnix(path))));
    const [first, ...others] = clients;
    const seen = others.map((client) => client.waitForEvent('MIGRATION'));
    await first!.execute('migrate', { uri: 'tcp:localhost:4444' });
    expect((await Promise.all(seen)).map(({ data }) => data.status)).toEqual(['setup', 'setup']);
    expect(await first!.execute('quit')).toEqual({});
    const reasons = await Promise.all(clients.map((client) => client.closed));
    expect(reasons.map(({ code }) => code)).toEqual(Array(3).fill('CONNECTION_CLOSED'));
  });

  it('drops a client that floods and never reads, and serves the others meanwhile', async () => {
    const flooder = connectUnix(path);
    flooder.onData(() => flooder.pause?.());
    const dropped = new Promise<void>((resolve) => flooder.onClose(() => resolve()));
    const client = await QmpClient.connect(connectUnix(path));
    gone.length = 0;
    flooder.send('nope '.repeat(200_000));
    while (gone.length === 0) {
      expect((await client.execute('query-status')).running).toBe(true);
    }
    expect(gone).toEqual(['output-overflow']);
    flooder.resume?.();
    await dropped;
    client.close();
  });
});
