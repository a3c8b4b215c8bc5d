import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { StreamWalk } from '@wherry/snapshot';
import { RamFlag, writeFooter, writeRamList, writeRamWord, writeSectionHead } from '@wherry/stream';
import { loadFixture } from '../../conformance/fixtures.ts';
import { judge, type Measurement, median, summarize } from './measurement.ts';

const PAGE_BYTES = 4096;
const RAM_SECTION_ID = 1;
const PAGES_A_PIECE = 4096;
const WHERRY: string = join(import.meta.dirname, '../../apps/wherry/bin/wherry.js');
/** Reads a file as `cat FILE >/dev/null` does, with a buffer of 1 MiB. */
const READ_FILE = `
const { openSync, readSync } = require('node:fs');
const fd = openSync(process.argv[1]), buffer = Buffer.allocUnsafe(2 ** 20);
while (readSync(fd, buffer) > 0);`;

/** A case of the command itself: whole processes, timed from start to exit. */
export interface CommandCase {
  readonly name: string;
  measure(quick: boolean): Measurement;
}

/** Lists the cases of the command. */
export function commandCases(): CommandCase[] {
  return [
    { name: 'wherry --help', measure: measureStart },
    { name: 'inspect --json, 4 GiB of random RAM', measure: measureLarge },
    { name: 'inspect --json, small stream', measure: measureSmall },
  ];
}

function measureStart(quick: boolean): Measurement {
  const [figure, limit] = inTurns(quick ? 5 : 25, [
    () => timeNode([WHERRY, '--help']),
    () => timeNode(['-e', '0']),
  ]);
  return row('wherry --help', figure!, limit!, 'node -e 0', 0.67);
}

function measureLarge(quick: boolean): Measurement {
  const gib = quick ? 1 : 4;
  return inFolder((folder) => {
    const file = join(folder, 'random.qevm');
    writeRandomStream(file, gib * 2 ** 30);
    const read = (): number => timeNode(['-e', READ_FILE, file]);
    read(); // into the page cache
    const [figure, limit] = inTurns(quick ? 1 : 5, [
      () => timeNode([WHERRY, 'inspect', '--json', file]),
      read,
    ]);
    const name = `inspect --json, ${gib} GiB of random RAM`;
    return row(name, figure!, limit!, 'reading the file with a buffer of 1 MiB', 0.5);
  });
}

function measureSmall(quick: boolean): Measurement {
  const analyzer = process.env['WHERRY_ANALYZER'];
  const name = 'inspect --json, small stream';
  return inFolder((folder) => {
    const file = join(folder, 'small.qevm');
    const fd = openSync(file, 'w');
    writeSync(fd, loadFixture('11.1', 'precopy').stream);
    closeSync(fd);
    const figureRun = (): number => timeNode([WHERRY, 'inspect', '--json', file]);
    if (analyzer === undefined || !existsSync(analyzer)) {
      const figure = inTurns(quick ? 3 : 15, [figureRun])[0]!;
      const note =
        'WHERRY_ANALYZER names no copy of scripts/analyze-migration.py of QEMU’s sources';
      return { ...row(name, figure, undefined, '', 2), note };
    }
    const [figure, limit] = inTurns(quick ? 3 : 15, [
      figureRun,
      () => time('python3', [analyzer, '-f', file, '-d', 'state']),
    ]);
    return row(name, figure!, limit!, 'QEMU’s analyze-migration.py -d state', 2);
  });
}

/** Runs each in its turn, so that whatever else the machine does meets all; the first turn is not counted. */
function inTurns(rounds: number, runs: readonly (() => number)[]): number[][] {
  for (const run of runs) run();
  const samples: number[][] = runs.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, run] of runs.entries()) samples[i]!.push(run());
  }
  return samples;
}

function row(
  name: string,
  figure: readonly number[],
  limit: readonly number[] | undefined,
  what: string,
  mark: number,
): Measurement {
  const ratio = limit && median(limit) / median(figure);
  return {
    name,
    figure: summarize(figure, 'ms'),
    limit: limit && { ...summarize(limit, 'ms'), what },
    ratio,
    mark,
    verdict: judge(ratio, mark),
  };
}

function time(program: string, args: readonly string[]): number {
  const begin = process.hrtime.bigint();
  run(program, args);
  return Number(process.hrtime.bigint() - begin) / 1e6;
}

function timeNode(args: readonly string[]): number {
  return time(process.execPath, args);
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? stderr}`);
}

function inFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'wherry-bench-'));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Writes the stream of a real machine whose RAM is replaced by this much of random pages. */
function writeRandomStream(path: string, ramBytes: number): void {
  const { stream } = loadFixture('11.1', 'precopy-devices');
  const walk = new StreamWalk();
  const reader = ByteReader.over(stream);
  runParser(walk.walk(reader), reader);
  const { items } = walk.model;
  const firstDevice = items.find((item) => item.type === 'section' && item.kind === 'full');
  const fd = openSync(path, 'w');
  try {
    const writer = new ByteWriter();
    writer.raw(stream.subarray(0, items[0]!.offset));
    const head = { sectionId: RAM_SECTION_ID, idstr: 'ram', instanceId: 0, version: 4 };
    writeSectionHead(writer, { kind: 'start', ...head });
    writeRamList(writer, [{ name: 'pc.ram', usedBytes: ramBytes }]);
    writeRamWord(writer, 0, RamFlag.eos);
    writeFooter(writer, RAM_SECTION_ID);
    writeSectionHead(writer, { kind: 'end', sectionId: RAM_SECTION_ID });
    writeRamWord(writer, 0, RamFlag.page);
    writer.counted('pc.ram').raw(new Uint8Array(PAGE_BYTES).fill(1));
    writeSync(fd, writer.finish());
    writePages(fd, ramBytes);
    writeRamWord(writer, 0, RamFlag.eos);
    writeFooter(writer, RAM_SECTION_ID);
    writer.raw(stream.subarray(firstDevice!.offset));
    writeSync(fd, writer.finish());
  } finally {
    closeSync(fd);
  }
}

/** Writes a record for each page but the first. */
function writePages(fd: number, ramBytes: number): void {
  const recordBytes = 8 + PAGE_BYTES;
  const piece = new Uint8Array(PAGES_A_PIECE * recordBytes);
  for (let at = 0; at < piece.length; at += 65_536) {
    crypto.getRandomValues(piece.subarray(at, Math.min(at + 65_536, piece.length)));
  }
  const view = new DataView(piece.buffer);
  for (let page = 1; page < ramBytes / PAGE_BYTES; ) {
    let count = 0;
    for (; count < PAGES_A_PIECE && page < ramBytes / PAGE_BYTES; count++, page++) {
      const word = BigInt(page * PAGE_BYTES) | BigInt(RamFlag.page | RamFlag.continue);
      view.setBigUint64(count * recordBytes, word);
    }
    writeSync(fd, piece.subarray(0, count * recordBytes));
  }
}
