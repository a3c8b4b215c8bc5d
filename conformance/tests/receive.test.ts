import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Release, releases } from '../peers/peers.ts';
import { type QemuOptions, QemuProcess } from '../qemu.ts';

const wherry = join(import.meta.dirname, '../../apps/wherry/dist/main.js');

/** A `wherry receive` as a process, and what it prints. */
class Receiver implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #stdout = '';
  #stderr = '';

  constructor(uri: string, file: string, args: readonly string[] = ['--json']) {
    this.#child = spawn(process.execPath, [wherry, 'receive', uri, file, ...args]);
    this.#child.stdout?.on('data', (chunk: Buffer) => (this.#stdout += chunk.toString()));
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#exited = new Promise((resolve) => this.#child.once('close', resolve));
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Waits for the URI that it listens on. */
  async uri(): Promise<string> {
    const found = Promise.withResolvers<string>();
    const look = (): void => {
      const uri = /^Listening on (\S+)$/m.exec(this.#stderr)?.[1];
      if (uri !== undefined) found.resolve(uri);
    };
    this.#child.stderr?.on('data', look);
    void this.#exited.then(() => found.reject(new Error(`it ended: ${this.#stderr}`)));
    look();
    return found.promise;
  }

  /** Waits until it has printed something on standard error. */
  async says(what: RegExp): Promise<void> {
    await vi.waitFor(() => expect(this.#stderr).toMatch(what), { timeout: 10_000 });
  }

  /** Waits for its end. */
  async result(): Promise<{ exitCode: number | null; stdout: string }> {
    return { exitCode: await this.#exited, stdout: this.#stdout };
  }

  interrupt(): void {
    this.#child.kill('SIGINT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

/** What a release loads: mapped-ram files from 9.0 on, streams ever. */
function formatFor(release: Release): readonly string[] {
  return ['--format', Number(release) >= 9 ? 'mapped-ram' : 'stream'];
}

/** Has a guest go on from what was kept, and checks that it lost nothing. */
async function goOn(file: string, source: QemuProcess, options: QemuOptions = {}): Promise<void> {
  const { peer } = source;
  const last = source.marks.at(-1)!.pass;
  await using destination = await QemuProcess.start(peer, { ...options, incoming: 'defer' });
  if (Number(peer.release) >= 9) {
    await destination.listen(`file:${file}`, { capabilities: ['mapped-ram'] });
  } else {
    await destination.listen(`exec:cat '${file}'`);
  }
  const marks = await destination.waitForPass(last + 10);
  expect(marks).toEqual(marks.map((_, i) => ({ pass: last + 1 + i, wrongWords: 0 })));
}

const slow = { 'max-bandwidth': 2_000_000 };

describe.each(releases)('wherry receive from %s', (release) => {
  peerTest(release, 'over a unix socket, without a vmdesc', async (peer) => {
    const machine = 'pc-q35-5.2,suppress-vmdesc=on';
    await using source = await QemuProcess.start(peer, { machine });
    await source.waitForPass(5);
    const file = join(source.directory, 'kept');
    await using receiver = new Receiver(`unix:${join(source.directory, 'm.sock')}`, file, [
      ...['--json', ...formatFor(release)],
    ]);
    await receiver.uri();
    await source.migrate('unix:m.sock', { capabilities: ['return-path'] });
    const { exitCode, stdout } = await receiver.result();
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ status: 'completed', vmdesc: false });
    await goOn(file, source, { machine });
  });

  peerTest(
    release,
    'refuses multifd that it was not told of, and the guest runs on',
    async (peer) => {
      await using source = await QemuProcess.start(peer);
      await source.waitForPass(5);
      const file = join(source.directory, 'kept');
      await using receiver = new Receiver('tcp:127.0.0.1:0', file, []);
      await source.startMigration(await receiver.uri(), {
        capabilities: ['multifd'],
        parameters: slow,
      });
      const { exitCode, stdout } = await receiver.result();
      expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
      expect(receiver.stderr).toContain('The source migrates with multifd');
      expect(existsSync(file)).toBe(false);
      await source.waitForMigration(['failed']);
      await source.waitForMarks(5);
    },
  );

  peerTest(
    release,
    'an interrupt removes what was received, and the guest runs on',
    async (peer) => {
      await using source = await QemuProcess.start(peer);
      await source.waitForPass(5);
      const file = join(source.directory, 'kept.qevm');
      await using receiver = new Receiver('tcp:127.0.0.1:0', file, []);
      await source.startMigration(await receiver.uri(), {
        parameters: { 'max-bandwidth': 20_000 },
      });
      await source.waitForMigration(['active']);
      receiver.interrupt();
      expect((await receiver.result()).exitCode).toBe(130);
      expect(readdirSync(source.directory).filter((name) => name.includes('kept'))).toEqual([]);
      await source.waitForMigration(['failed']);
      await source.waitForMarks(5);
    },
  );
});

test('the command was built', () => {
  expect(existsSync(wherry), 'run `npm run build` first').toBe(true);
});
