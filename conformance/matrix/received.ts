import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { MigrationParameters } from '@wherry/qmp';
import { expect } from 'vitest';
import type { Release } from '../peers/peers.ts';
import { findPeer, isPeer } from '../peers/peers.ts';
import { type MigrationSettings, QemuProcess } from '../qemu.ts';
import { WherryCommand } from '../wherry-command.ts';
import type { Bench, Way } from './cell.ts';
import { makeFifo } from './pipe.ts';

/** What `wherry receive --json` prints, as far as cells look at it. */
export interface ReceiveReport {
  readonly status: string;
  readonly vmdesc: boolean;
  readonly trailingBytes: number;
  readonly pages: Readonly<Record<'page' | 'zero' | 'xbzrle' | 'compress', number>>;
}

/** How a guest goes from QEMU to `wherry receive`, and on. */
export interface ReceivedOptions {
  /** `tcp` unless told. */
  readonly channel?: 'tcp' | 'unix' | 'exec' | 'file';
  readonly receiveArgs?: readonly string[];
  /** What to do once the migration has begun, until it can end by itself. */
  readonly during?: (source: QemuProcess, receiver: WherryCommand, uri: string) => Promise<void>;
  /** What to do at the source before the migration. */
  readonly before?: (source: QemuProcess) => Promise<void>;
  /** What to look for in the report, and at the source. */
  readonly check?: (report: ReceiveReport, source: QemuProcess) => Promise<void> | void;
  /** What the QEMU that goes on is set to. */
  readonly load?: MigrationSettings;
  /** What to look for where the guest has gone on. */
  readonly checkLoaded?: (loaded: QemuProcess) => Promise<void>;
  /** The release that goes on, where it is another one. */
  readonly to?: Release;
  /** Whether the source's guest runs on: behind a snapshot. */
  readonly isSnapshot?: boolean;
}

/** Has QEMU migrate to `wherry receive`, and a QEMU go on from what was kept. */
export function received(options: ReceivedOptions = {}): Way {
  return async (bench) => {
    const { peer, machine, mode, folder } = bench;
    await using source = await QemuProcess.start(peer, machine);
    await source.waitForPass(5);
    await options.before?.(source);
    const file = join(folder, 'kept');
    const argv = [
      ...['receive', receiveUri(options, folder), file, '--json'],
      ...['--format', isMappedRam(options.to ?? peer.release) ? 'mapped-ram' : 'stream'],
      ...(options.receiveArgs ?? []),
    ];
    const settings = mode.settings ?? {};
    if (options.channel === 'file') await source.migrate(`file:${folder}/guest`, settings);
    await using receiver = WherryCommand.start(argv);
    const uri = await sourceUri(options, folder, receiver);
    if (options.channel !== 'file') {
      await source.startMigration(uri, settings);
      await options.during?.(source, receiver, uri);
      await source.waitForMigration();
    }
    const report: ReceiveReport = JSON.parse(await receiver.succeeded());
    expect(report).toMatchObject({ status: 'completed', trailingBytes: 0 });
    expect(readdirSync(folder).filter((entry) => /\.(part|pages)/.test(entry))).toEqual([]);
    await options.check?.(report, source);
    const last = options.isSnapshot ? undefined : source.marks.at(-1)!.pass;
    await goOn(bench, file, last, options);
  };
}

/** Mapped-ram files load from 9.0 on, streams ever. */
function isMappedRam(release: Release): boolean {
  return Number(release) >= 9;
}

function receiveUri({ channel = 'tcp' }: ReceivedOptions, folder: string): string {
  switch (channel) {
    case 'tcp':
      return 'tcp:127.0.0.1:0';
    case 'unix':
      return `unix:${folder}/in.sock`;
    case 'exec':
      makeFifo(`${folder}/fifo`);
      return `exec:cat ${folder}/fifo`;
    case 'file':
      return `file:${folder}/guest`;
  }
}

async function sourceUri(
  { channel }: ReceivedOptions,
  folder: string,
  receiver: WherryCommand,
): Promise<string> {
  const uri = await receiver.listeningUri();
  return channel === 'exec' ? `exec:cat > ${folder}/fifo` : uri;
}

/** Has a kept guest go on behind the last pass of its source, and sees that it lost nothing. */
async function goOn(
  { peer, machine, folder, skip }: Bench,
  file: string,
  last: number | undefined,
  { to, load = {}, checkLoaded }: ReceivedOptions,
): Promise<void> {
  const far = to === undefined ? peer : findPeer(to);
  if (!isPeer(far)) return skip(`QEMU ${to}: ${far.missing}`);
  await using loaded = await QemuProcess.start(far, { ...machine, incoming: 'defer' });
  if (isMappedRam(far.release)) {
    const capabilities = [...(load.capabilities ?? []), 'mapped-ram' as const];
    await loaded.listen(`file:${file}`, { ...load, capabilities });
  } else {
    await loaded.listen(`exec:cat ${folder}/kept`, load);
  }
  await loaded.waitForMigration();
  if (last === undefined) await loaded.qmp.execute('cont');
  await expectGoesOn(loaded, last);
  await checkLoaded?.(loaded);
}

/** Expects marks without a gap and without a wrong word; behind a known pass, where there is one. */
export async function expectGoesOn(qemu: QemuProcess, last: number | undefined): Promise<void> {
  const marks =
    last === undefined ? await qemu.waitForMarks(10) : await qemu.waitForPass(last + 10);
  const first = last === undefined ? marks[0]!.pass : last + 1;
  expect(marks).toEqual(marks.map((_, i) => ({ pass: first + i, wrongWords: 0 })));
}

/** Bandwidth at which a guest of 8 MiB can be met in its first round. */
export const slow: MigrationParameters = { 'max-bandwidth': 2_000_000 };

/** Switches to postcopy in the first round. */
export async function startPostcopy(source: QemuProcess): Promise<void> {
  await source.waitForMigration(['active']);
  await source.qmp.execute('migrate-start-postcopy');
}
