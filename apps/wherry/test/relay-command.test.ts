import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import { smallStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import { CALM, expectGuestRuns, Lab, sendRaw, until, untilStatus } from './processes.ts';

const lab = new Lab();
afterAll(() => lab.close());

describe('wherry relay', () => {
  test('stands between two hosts: the guest arrives, and the table tells what passed', async () => {
    const [source, destination] = await lab.pair(CALM);
    const [near, far] = [await lab.path('near'), await lab.path('far')];
    await destination.client.execute('migrate-incoming', { uri: `unix:${far}` });
    const relay = lab.start(['relay', `unix:${near}`, `unix:${far}`, '--delay', '5']);
    await until(() => relay.stderr.includes('Listening on'), 'the relay listens');
    const capabilities = [{ capability: 'return-path', state: true } as const];
    await source.client.execute('migrate-set-capabilities', { capabilities });
    await source.client.execute('migrate', { uri: `unix:${near}` });
    await untilStatus(source, 'completed');
    await expectGuestRuns(destination);
    const { code, stdout, stderr } = await relay.ended;
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout).toMatch(/status +│ +completed/);
    for (const line of ['setup', 'ram', 'switchover', 'devices', 'end', 'return path: shut 0']) {
      expect(stderr).toContain(`main        ${line}`);
    }
  });

  test('a cut makes the source go on, and is what was asked for', async () => {
    const [source, destination] = await lab.pair(CALM);
    const [near, far] = [await lab.path('near'), await lab.path('far')];
    await destination.client.execute('migrate-incoming', { uri: `unix:${far}` });
    const args = ['relay', `unix:${near}`, `unix:${far}`, '--cut-after', 'ram+100K', '--json'];
    const relay = lab.start(args);
    await until(() => relay.stderr.includes('Listening on'), 'the relay listens');
    await source.client.execute('migrate', { uri: `unix:${near}` });
    await untilStatus(source, 'failed');
    await expectGuestRuns(source);
    const { code, stdout } = await relay.ended;
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ status: 'cut', faults: [{ at: 'ram+100K' }] });
  });

  test('ends with 1 when the place of a fault never passed', async () => {
    const far = await lab.path('far');
    const server = createServer((socket) => socket.resume()).listen(far);
    await once(server, 'listening');
    const near = await lab.path('near');
    const relay = lab.start(['relay', `unix:${near}`, `unix:${far}`, '--corrupt', 'nvme']);
    await until(() => relay.stderr.includes('Listening on'), 'the relay listens');
    await sendRaw({ path: near }, smallStream());
    const { code, stderr, stdout } = await relay.ended;
    server.close();
    expect(code).toBe(1);
    expect(stderr).toContain('That place never passed: corrupt nvme');
    expect(stdout).toMatch(/corrupt nvme +│ +that place never passed/);
  });

  test('an interrupt ends it with 130 and its table', async () => {
    const near = await lab.path('near');
    const relay = lab.start(['relay', `unix:${near}`, 'unix:/nowhere']);
    await until(() => relay.stderr.includes('Listening on'), 'the relay listens');
    relay.child.kill('SIGINT');
    const { code, stdout } = await relay.ended;
    expect(code).toBe(130);
    expect(stdout).toMatch(/status +│ +none/);
  });

  test.each<[string, string[]]>([
    ['not valid', ['carrier-pigeon:1', 'tcp:127.0.0.1:1']],
    ['not valid', ['tcp:127.0.0.1:0', 'pigeon']],
    ['is no size', ['tcp:127.0.0.1:0', 'unix:/x', '--limit', 'fast']],
    ['nothing would pass', ['tcp:127.0.0.1:0', 'unix:/x', '--limit', '0']],
    ['milliseconds', ['tcp:127.0.0.1:0', 'unix:/x', '--delay', '1s']],
    ['is no place', ['tcp:127.0.0.1:0', 'unix:/x', '--cut-after', 'ram+']],
    ['the mask', ['tcp:127.0.0.1:0', 'unix:/x', '--corrupt', 'ram^00']],
    ['Cannot record', ['tcp:127.0.0.1:0', 'unix:/x', '--record', '/nowhere/file']],
  ])('calls it wrong usage: %s', async (message, args) => {
    const { code, stderr } = await lab.run(['relay', ...args]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});
