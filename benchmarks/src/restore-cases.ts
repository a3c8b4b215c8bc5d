import { execFileSync, spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { findPeer, isPeer, type Peer } from '../../conformance/peers/peers.ts';
import { QemuProcess } from '../../conformance/qemu.ts';
import { type Measurement, summarize } from './measurement.ts';
import type { MigrationCase } from './migration-cases.ts';

const GiB = 2 ** 30;
const PAGE_BYTES = 4096;
const CHUNK_BYTES = 2 ** 24;
/** The guest has its own pages below; all others are random. */
const OWN_BYTES = 2 ** 24;
/** How soon the guest is to run, whatever its size. */
const MARK_MS = 1000;
const START_MS = 300_000;
const WHERRY: string = join(import.meta.dirname, '../../apps/wherry/bin/wherry.js');

/** Lists restores of guests of random pages, by size. */
export function restoreCases(): MigrationCase[] {
  return [1, 4, 8].map((gib) => {
    const name = `restore, ${gib} GiB`;
    return { name, measure: (runs) => measureRestore(name, gib * GiB, runs) };
  });
}

/**
 * Measures how long it takes from the command to the guest's first mark on its serial port: QEMU waits
 * already, the files are in memory.
 *
 * @returns a row for each format, beside the load of a QEMU that has no other way
 */
async function measureRestore(
  name: string,
  ramBytes: number,
  runs: number,
): Promise<Measurement[]> {
  const [old, current] = [findPeer('7.2'), findPeer('11.1')];
  const missing = [old, current].map((peer) => (isPeer(peer) ? undefined : peer.missing));
  const lacks = freemem() < 2.2 * ramBytes ? `it takes ${(2.2 * ramBytes) / GiB} GiB` : undefined;
  if (!isPeer(old) || !isPeer(current) || lacks !== undefined) {
    const note = [...missing, lacks].filter(Boolean).join('; ');
    return [{ ...row(name, undefined, undefined, ''), verdict: 'skipped', note }];
  }
  const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'wherry-'));
  try {
    const [mapped, stream] = [join(folder, 'mapped'), join(folder, 'stream')];
    await saveRandomGuest(current, ramBytes, mapped);
    const load =
      (peer: Peer, uri: string, capabilities: readonly 'mapped-ram'[]) => (): Promise<number> =>
        timeToMark(peer, ramBytes, async (qemu) => qemu.listen(uri, { capabilities }));
    const send = (peer: Peer, file: string) => (): Promise<number> =>
      timeToMark(peer, ramBytes, (qemu) => sendPostcopy(qemu, file));
    const [sent, loaded] = await inTurns(runs, [
      send(current, mapped),
      load(current, `file:${mapped}`, ['mapped-ram']),
    ]);
    const [sentOld] = await inTurns(runs, [send(old, mapped)]);
    // Both files and a guest would not fit into memory together.
    execFileSync(process.execPath, [WHERRY, 'convert', mapped, stream, '--to', 'stream']);
    rmSync(mapped);
    const [sentStream, loadedStream] = await inTurns(runs, [
      send(old, stream),
      load(old, `exec:cat ${stream}`, []),
    ]);
    const ofOld = 'QEMU 7.2 loads a stream';
    return [
      judged(row(`${name}, mapped-ram into 11.1`, sent, loaded, 'QEMU 11.1 loads mapped-ram')),
      judged(row(`${name}, mapped-ram into 7.2`, sentOld, loadedStream, ofOld)),
      row(`${name}, stream into 7.2`, sentStream, loadedStream, ofOld),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Saves a guest that runs as mapped-ram, and puts random bytes where it has zeros. */
async function saveRandomGuest(peer: Peer, ramBytes: number, file: string): Promise<void> {
  await using source = await QemuProcess.start(peer, { ram: `${ramBytes / 2 ** 20}M` });
  await source.waitForPass(5);
  await source.migrate(`file:${file}`, { capabilities: ['mapped-ram'] });
  const report = execFileSync(process.execPath, [WHERRY, 'inspect', '--json', file], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  const { blocks } = JSON.parse(report).ram as { blocks: readonly MappedBlock[] };
  const { mapped } = blocks.find(({ name }) => name === 'pc.ram')!;
  const fd = openSync(file, 'r+');
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let at = OWN_BYTES; at < ramBytes; at += CHUNK_BYTES) {
    writeSync(fd, randomFillSync(chunk), 0, CHUNK_BYTES, mapped.pagesOffset + at);
  }
  const [firstByte, lastByte] = [OWN_BYTES, ramBytes].map((bytes) => bytes / PAGE_BYTES / 8);
  const present = new Uint8Array(lastByte! - firstByte!).fill(0xff);
  writeSync(fd, present, 0, present.length, mapped.bitmapOffset + firstByte!);
  closeSync(fd);
}

interface MappedBlock {
  readonly name: string;
  readonly mapped: { readonly bitmapOffset: number; readonly pagesOffset: number };
}

/** Starts a QEMU that waits, has it get the guest, and takes the time to the guest's first mark. */
async function timeToMark(
  peer: Peer,
  ramBytes: number,
  restore: (qemu: QemuProcess) => Promise<unknown>,
): Promise<number> {
  const ram = `${ramBytes / 2 ** 20}M`;
  await using qemu = await QemuProcess.start(peer, { ram, incoming: 'defer' });
  const restored = restore(qemu);
  const begin = performance.now();
  const [mark] = await qemu.waitForMarks(1, START_MS);
  const timeMs = performance.now() - begin;
  if (mark === undefined || mark.wrongWords > 0) throw new Error('the guest lost writes');
  await restored;
  return timeMs;
}

async function sendPostcopy(qemu: QemuProcess, file: string): Promise<void> {
  await qemu.listen('unix:in.sock', { capabilities: ['postcopy-ram'] });
  const uri = `unix:${join(qemu.directory, 'in.sock')}`;
  const argv = [WHERRY, 'send', file, uri, '--postcopy', '--json'];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'ignore', 'inherit'] });
  const [exitCode] = (await once(child, 'close')) as [number | null];
  if (exitCode !== 0) throw new Error(`wherry send ended with ${exitCode}`);
}

/** Runs each in its turn. */
async function inTurns(
  rounds: number,
  runs: readonly (() => Promise<number>)[],
): Promise<number[][]> {
  const samples: number[][] = runs.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, run] of runs.entries()) samples[i]!.push(await run());
  }
  return samples;
}

function row(
  name: string,
  times: readonly number[] | undefined,
  beside: readonly number[] | undefined,
  what: string,
): Measurement {
  const figure = times && summarize(times, 'ms');
  const limit = beside && { ...summarize(beside, 'ms'), what };
  const ratio = figure && limit && limit.value / figure.value;
  return { name, figure, limit, ratio, mark: undefined, verdict: 'none' };
}

/** Holds a time against the mark that does not depend on another's. */
function judged(measurement: Measurement): Measurement {
  const isMet = measurement.figure!.value <= MARK_MS;
  return { ...measurement, verdict: isMet ? 'met' : 'missed', note: `mark: at most ${MARK_MS} ms` };
}
