import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { QmpClient } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { type MigrationSettings, marksAcross, QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { RelayProcess } from '../relay-process.ts';

const WHERRY = fileURLToPath(new URL('../../apps/wherry/dist/main.js', import.meta.url));
const devices = ['-device', 'virtio-net-pci,addr=02.0,romfile='];

/** Runs another command of wherry. @returns what it printed */
async function wherry(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [WHERRY, ...args], {
    maxBuffer: 2 ** 28,
  });
  return stdout;
}

/** A source and a destination of one release, and a relay between them. */
class Pair implements AsyncDisposable {
  readonly source: QemuProcess;
  readonly destination: QemuProcess;
  readonly relay: RelayProcess;
  readonly settings: MigrationSettings;

  private constructor(
    source: QemuProcess,
    destination: QemuProcess,
    relay: RelayProcess,
    settings: MigrationSettings,
  ) {
    this.source = source;
    this.destination = destination;
    this.relay = relay;
    this.settings = settings;
  }

  static async start(
    peer: Peer,
    relayArgs: readonly string[],
    settings: MigrationSettings,
  ): Promise<Pair> {
    const oob = ['-qmp', 'unix:oob.sock,server=on,wait=off'];
    const source = await QemuProcess.start(peer, { args: devices });
    const destination = await QemuProcess.start(peer, {
      args: [...devices, ...oob],
      incoming: 'defer',
    });
    await source.waitForPass(5);
    await destination.listen('unix:main.sock', settings);
    const relay = await RelayProcess.start(
      source.directory,
      'unix:relay.sock',
      `unix:${join(destination.directory, 'main.sock')}`,
      ...relayArgs,
    );
    return new Pair(source, destination, relay, settings);
  }

  /** The URI that leads to the relay. */
  get uri(): string {
    return `unix:${join(this.source.directory, 'relay.sock')}`;
  }

  startMigration(): Promise<void> {
    return this.source.startMigration(this.uri, this.settings);
  }

  /** Sees that the guest goes on at the destination without a wrong word. */
  async expectMoved(): Promise<void> {
    await this.destination.waitForMarks(5);
    const marks = marksAcross(this.source, this.destination);
    expect(marks.filter(({ wrongWords }) => wrongWords > 0)).toEqual([]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    await this.destination.close();
    await this.source.close();
  }
}

const returnPath: MigrationSettings = { capabilities: ['return-path'] };

describe.each(releases)('wherry relay between two QEMUs', (release) => {
  peerTest(release, 'a whole migration, recorded', async (peer) => {
    await using pair = await Pair.start(peer, ['--record', 'rec'], returnPath);
    const info = await pair.source.migrate(pair.uri, returnPath);
    await pair.expectMoved();
    const { exitCode, report } = await pair.relay.result();
    const pages = { page: info.ram?.normal, zero: info.ram?.duplicate };
    expect(exitCode).toBe(0);
    expect(report).toMatchObject({
      status: 'completed',
      pages,
      channels: [{ name: 'main', end: 'closed', messages: { shut: 1 } }],
    });
    expect(report.channels[0]?.problem).toBeUndefined();
    const inspected = JSON.parse(
      await wherry('inspect', '--json', join(pair.source.directory, 'rec')),
    );
    expect(inspected.devices.length).toBe(report.devices);
    expect(inspected).not.toHaveProperty('error');
  });

  peerTest(release, 'multifd', async (peer) => {
    await using pair = await Pair.start(peer, ['--record', 'rec'], {
      capabilities: ['multifd', 'return-path'],
      parameters: { 'multifd-channels': 3 },
    });
    await pair.startMigration();
    await pair.source.waitForMigration();
    await pair.expectMoved();
    const { report } = await pair.relay.result();
    expect(report.status).toBe('completed');
    expect(report.channels.map(({ name }) => name).sort()).toEqual([
      ...['main', 'multifd 0', 'multifd 1', 'multifd 2'],
    ]);
    expect(report.channels.every(({ forwardBytes }) => forwardBytes >= 64)).toBe(true);
  });

  for (const phase of ['setup', 'ram', 'switchover', 'devices']) {
    peerTest(release, `a link cut in ${phase}: the guest runs on`, async (peer) => {
      await using pair = await Pair.start(peer, ['--cut-after', phase], returnPath);
      await pair.startMigration();
      const { exitCode, report } = await pair.relay.result();
      expect({ exitCode, status: report.status }).toEqual({ exitCode: 0, status: 'cut' });
      expect(report.faults).toMatchObject([{ channel: 'main' }]);
      await pair.source.waitForMigration(['failed']);
      await pair.source.waitForMarks(5);
      expect(pair.source.marks.filter(({ wrongWords }) => wrongWords > 0)).toEqual([]);
    });
  }

  peerTest(release, 'a link cut in postcopy: both pause, and recover through it', async (peer) => {
    await using pair = await Pair.start(peer, ['--cut-after', 'return-path:req-pages+64'], {
      capabilities: ['postcopy-ram', 'return-path'],
      parameters: { 'max-bandwidth': 200_000, 'max-postcopy-bandwidth': 300_000 },
    });
    const { source, destination } = pair;
    const oob = await QmpClient.connect(
      await connectQmpSocket(join(destination.directory, 'oob.sock')),
      { enable: ['oob'] },
    );
    await pair.startMigration();
    await source.waitForMigration(['active']);
    await source.qmp.execute('migrate-start-postcopy');
    await source.waitForMigration(['postcopy-paused']);
    // Refused until the destination has noticed; one whose guest waits for a page answers nothing else.
    for (let attempt = 1; ; attempt++) {
      try {
        await oob.execute('migrate-recover', { uri: 'unix:main.sock' }, { oob: true });
        break;
      } catch (error) {
        if (attempt === 200) throw error;
        await sleep(50);
      }
    }
    await source.qmp.execute('migrate', { uri: pair.uri, resume: true });
    await source.waitForMigration();
    await pair.expectMoved();
    oob.close();
    const { exitCode, report } = await pair.relay.result();
    expect({ exitCode, status: report.status }).toEqual({ exitCode: 0, status: 'completed' });
    expect(report.channels.map(({ name, end }) => [name, end])).toEqual([
      ['main', 'cut'],
      ['recovery', 'closed'],
    ]);
    expect(report.channels[1]?.messages).toMatchObject({ 'resume-ack': 1, shut: 1 });
  });

  peerTest(release, 'a damaged section: QEMU says so, and wherry explains it', async (peer) => {
    // Behind the version, a PCI device's state begins with its vendor id.
    const place = '0000:00:02.0/virtio-net+4^01';
    await using pair = await Pair.start(peer, ['--corrupt', place], returnPath);
    await pair.startMigration();
    const { exitCode, report } = await pair.relay.result();
    expect(exitCode).toBe(0);
    expect(report.faults).toMatchObject([{ channel: 'main' }]);
    await pair.source.waitForMigration(['failed']);
    await pair.source.waitForMarks(5);
    await pair.destination.exited;
    expect(pair.destination.stderr).toContain('Bad config data: i=0x0');
    const line = pair.destination.stderr.split('\n').find((text) => text.includes('Bad config'))!;
    const [cause] = JSON.parse(await wherry('explain', '--json', line)).explained;
    expect(cause.code).toBe('PCI_CONFIG');
  });
});

describe('wherry relay with a preempt channel', () => {
  for (const release of releases.filter((each) => each !== '5.2')) {
    peerTest(release, 'passes the silent channel on', async (peer) => {
      await using pair = await Pair.start(peer, [], {
        capabilities: ['postcopy-ram', 'postcopy-preempt', 'return-path'],
        parameters: { 'max-bandwidth': 200_000, 'max-postcopy-bandwidth': 2_000_000 },
      });
      await pair.startMigration();
      await pair.source.waitForMigration(['active']);
      await pair.source.qmp.execute('migrate-start-postcopy');
      await pair.source.waitForMigration();
      await pair.expectMoved();
      const { report } = await pair.relay.result();
      expect(report.status).toBe('completed');
      expect(report.channels.map(({ name }) => name)).toEqual(['main', 'preempt']);
    });
  }
});
