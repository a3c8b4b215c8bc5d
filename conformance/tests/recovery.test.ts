import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { HugePages } from '../huge-pages.ts';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import type { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { SimulatedHost } from '../simulated-host.ts';

/** A relay to a port or path; `cut` resets what goes through it. */
class Link implements AsyncDisposable {
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer({ allowHalfOpen: true });
  readonly path: string;

  private constructor(path: string, far: string) {
    this.path = path;
    this.#server.on('connection', (near) => {
      const there = connect({ path: far, allowHalfOpen: true });
      for (const [from, to] of [
        [near, there],
        [there, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('error', () => to.destroy()).pipe(to);
      }
    });
  }

  static async open(path: string, far: string): Promise<Link> {
    const link = new Link(path, far);
    link.#server.listen(path);
    await once(link.#server, 'listening');
    return link;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Waits for what a side says of its migration. */
async function untilStatus(qmp: QmpClient, status: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const info = await qmp.execute('query-migrate');
    if (info.status === status) return;
    if (attempt === 200) throw new Error(`${info.status} (${info['error-desc']}), not ${status}`);
    await sleep(50);
  }
}

/** Calls until it is not refused: a destination takes its time to notice the break. */
async function retry(call: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await call();
      return;
    } catch (error) {
      if (attempt === 100) throw error;
      await sleep(50);
    }
  }
}

/**
 * Moves a simulated guest into a real QEMU by postcopy; the link is cut several times, once by the
 * source itself.
 */
async function moveOverBreaks(
  peer: Peer,
  hostArgs: readonly string[],
  isHuge: boolean,
  further?: 'postcopy-preempt',
): Promise<QemuProcess> {
  const qemu = await startQemu(peer, hostArgs.includes('--paused') ? ['-S'] : [], isHuge);
  try {
    const path = (name: string): string => join(qemu.directory, name);
    await using _ = await SimulatedHost.start(path('host.qmp'), hostOptions(hostArgs, isHuge));
    const source = await QmpClient.connect(await connectQmpSocket(path('host.qmp')));
    // While its guest waits for a page, a destination may answer to nothing but out-of-band commands.
    const destination = await QmpClient.connect(await connectQmpSocket(path('second.sock')), {
      enable: ['oob'],
    });
    const capabilities = ['postcopy-ram', ...(further === undefined ? [] : [further])] as const;
    await source.execute('migrate-set-capabilities', {
      capabilities: capabilities.map((capability) => ({ capability, state: true })),
    });
    await source.execute('migrate-set-parameters', {
      'max-bandwidth': 2_000_000,
      'max-postcopy-bandwidth': 8_000_000,
    });
    await qemu.listen('unix:main.sock', { capabilities: ['events', ...capabilities] });
    await using link = await Link.open(path('link.sock'), path('main.sock'));
    const resumed = destination.waitForEvent(
      'MIGRATION',
      ({ data }) => data.status === 'postcopy-active',
    );
    await source.execute('migrate', { uri: `unix:${link.path}` });
    await untilStatus(source, 'active');
    await source.execute('migrate-start-postcopy');
    await untilStatus(source, 'postcopy-active');
    await resumed;
    await sleep(300); // some pages, and RUN
    link.cut();
    for (const round of [1, 2, 3]) {
      await untilStatus(source, 'postcopy-paused');
      const uri = `unix:recover${round}.sock`;
      await retry(() => destination.execute('migrate-recover', { uri }, { oob: true }));
      await using next = await Link.open(path(`link${round}.sock`), path(`recover${round}.sock`));
      await source.execute('migrate', { uri: `unix:${next.path}`, resume: true });
      await untilStatus(source, 'postcopy-active');
      await sleep(300);
      if (round === 1) next.cut();
      if (round === 2) await source.execute('migrate-pause');
      if (round === 3) {
        await untilStatus(source, 'completed');
        await untilStatus(destination, 'completed');
      }
    }
    source.close();
    destination.close();
    return qemu;
  } catch (error) {
    await qemu.close();
    throw error;
  }
}

describe('a postcopy into a real QEMU over a link that breaks again and again', () => {
  for (const release of releases) {
    peerTest(release, 'every page equal', async (peer) => {
      const guest = ['--paused', '--fill', '0.9', '--seed', '8'];
      await using qemu = await moveOverBreaks(peer, guest, false);
      await expectSamePages(await streamOf(qemu), guest);
    });

    peerTest(release, '2 MiB pages, every page equal', async (peer, skip) => {
      const pages = HugePages.reserve(4);
      if (!(pages instanceof HugePages)) return skip(pages.missing);
      using _ = pages;
      const guest = ['--paused', '--fill', '0.9', '--seed', '9'];
      await using qemu = await moveOverBreaks(peer, guest, true);
      await expectSamePages(await streamOf(qemu), guest);
    });

    peerTest(release, 'of a running guest, which waits for pages', async (peer) => {
      await using qemu = await moveOverBreaks(peer, ['--fill', '0.9'], false);
      expect(await qemu.qmp.execute('query-status')).toMatchObject({ running: true });
    });

    if (release === '5.2') continue; // it has no channel for requested pages
    // As a machine of 7.2 and before, with the channel from the beginning; and as a later one, which 7.2
    // does not know. QEMU compares no more of a machine type's name than was sent.
    for (const [when, name] of [
      ['from the beginning', 'pc-q35-5.2'],
      ['from postcopy on', 'pc-q35'],
    ] as const) {
      if (release === '7.2' && name === 'pc-q35') continue;
      peerTest(release, `with a channel for requests ${when}, 2 MiB pages`, async (peer, skip) => {
        const pages = HugePages.reserve(4);
        if (!(pages instanceof HugePages)) return skip(pages.missing);
        using _ = pages;
        const guest = ['--machine', name, '--paused', '--fill', '0.9', '--seed', '10'];
        await using qemu = await moveOverBreaks(peer, guest, true, 'postcopy-preempt');
        await expectSamePages(await streamOf(qemu), guest);
      });

      if (release !== '7.2' && name !== 'pc-q35') continue;
      peerTest(release, `with a channel for requests ${when}, a running guest`, async (peer) => {
        const guest = ['--machine', name, '--fill', '0.9'];
        await using qemu = await moveOverBreaks(peer, guest, false, 'postcopy-preempt');
        expect(await qemu.qmp.execute('query-status')).toMatchObject({ running: true });
      });
    }
  }
});
