import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect } from 'vitest';
import { memoryMap } from '../../apps/wherry/src/convert/memory-map.ts';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';

const wherry = join(import.meta.dirname, '../../apps/wherry/dist/main.js');
const args = ['-device', 'virtio-net-pci,romfile='];

async function convert(from: string, to: string, format: string): Promise<void> {
  const argv = [wherry, 'convert', from, to, '--to', format, '--json'];
  const { stdout } = await promisify(execFile)(process.execPath, argv);
  expect(JSON.parse(stdout)).toMatchObject({ status: 'completed', format });
}

/** A guest that was saved while it ran, and the QEMU where it stopped. */
async function saved(source: QemuProcess): Promise<string> {
  await source.waitForPass(5);
  const file = join(source.directory, 'guest.saved');
  await source.migrate(`exec:cat > ${file}`);
  return file;
}

async function expectGoesOn(source: QemuProcess, destination: QemuProcess): Promise<void> {
  const last = source.marks.at(-1)!.pass;
  const marks = await destination.waitForPass(last + 20);
  expect(marks).toEqual(marks.map((_, i) => ({ pass: last + 1 + i, wrongWords: 0 })));
}

async function monitor({ qmp }: QemuProcess, command: string): Promise<string> {
  const said = await qmp.execute('human-monitor-command', { 'command-line': command });
  return String(said);
}

/** The segments of a core file by guest-physical address, and the first thread's registers. */
function readCore(core: Buffer): { segments: Map<number, Buffer>; registers: bigint[] } {
  const segments = new Map<number, Buffer>();
  let registers: bigint[] = [];
  for (let i = 0; i < core.readUInt16LE(56); i++) {
    const at = Number(core.readBigUInt64LE(32)) + i * 56;
    const word = (index: number): number => Number(core.readBigUInt64LE(at + index * 8));
    const [offset, paddr, length] = [word(1), word(3), word(4)];
    if (core.readUInt32LE(at) === 1) segments.set(paddr, core.subarray(offset, offset + length));
    else {
      registers = Array.from({ length: 27 }, (_, i) =>
        core.readBigUInt64LE(offset + 20 + 112 + i * 8),
      );
    }
  }
  return { segments, registers };
}

describe.each(releases)('what wherry convert writes, with %s', (release) => {
  peerTest(release, 'goes on as a stream with each page once', async (peer) => {
    await using source = await QemuProcess.start(peer, { args });
    const file = await saved(source);
    const stream = join(source.directory, 'guest.stream');
    await convert(file, stream, 'stream');
    await using destination = await QemuProcess.start(peer, {
      args,
      incoming: `exec:cat ${stream}`,
    });
    await expectGoesOn(source, destination);
  });

  if (release === '10.0' || release === '11.1') {
    peerTest(release, 'goes on as a mapped-ram file, and back as a stream', async (peer) => {
      await using source = await QemuProcess.start(peer, { args });
      const file = await saved(source);
      const path = (name: string): string => join(source.directory, name);
      await convert(file, path('mapped'), 'mapped-ram');
      await convert(path('mapped'), path('stream'), 'stream');
      await convert(file, path('direct'), 'stream');
      expect(Buffer.compare(readFileSync(path('stream')), readFileSync(path('direct')))).toBe(0);
      await using destination = await QemuProcess.start(peer, { args, incoming: 'defer' });
      await destination.listen(`file:${path('mapped')}`, { capabilities: ['mapped-ram'] });
      await expectGoesOn(source, destination);
    });
  }

  peerTest(release, 'is the memory that QEMU itself dumps', async (peer) => {
    await using source = await QemuProcess.start(peer, { args });
    const file = await saved(source);
    const path = (name: string): string => join(source.directory, name);
    await source.qmp.execute('dump-guest-memory', { paging: false, protocol: 'file:dump' });
    await convert(file, path('core'), 'elf');
    await convert(file, path('raw'), 'raw');
    const theirs = readCore(readFileSync(path('dump'))).segments;
    const { segments, registers } = readCore(readFileSync(path('core')));
    const raw = readFileSync(path('raw'));
    expect([...segments.keys()]).toEqual([0]);
    // From 768 KiB to 1 MiB QEMU shows what the chipset has laid over the RAM.
    for (const at of [0, 0x10_0000]) {
      const bytes = theirs.get(at)!;
      expect(Buffer.compare(segments.get(0)!.subarray(at, at + bytes.length), bytes)).toBe(0);
    }
    for (const [at, bytes] of segments) {
      expect(Buffer.compare(raw.subarray(at, at + bytes.length), bytes)).toBe(0);
    }
    const said = await monitor(source, 'info registers');
    const register = (name: string): bigint => {
      const [, digits] = new RegExp(`${name}=([0-9a-f]+)`).exec(said)!;
      return BigInt(`0x${digits}`);
    };
    const r64 = said.includes('RIP=') ? 'R' : 'E';
    const names = [...['BP', 'BX'], ...['AX', 'CX', 'DX', 'SI', 'DI']];
    expect([registers[4], registers[5], ...registers.slice(10, 15), registers[16]]).toEqual(
      [...names, 'IP'].map((name) => register(r64 + name)),
    );
  });

  peerTest(release, 'is a core file that gdb opens, with each vCPU', async (peer, skip) => {
    const run = promisify(execFile);
    const gdb = await run('gdb', ['--version']).catch(() => undefined);
    if (gdb === undefined) skip('there is no gdb');
    await using source = await QemuProcess.start(peer, { args: ['-smp', '2'] });
    const file = await saved(source);
    const core = join(source.directory, 'core');
    await convert(file, core, 'elf');
    const commands = ['info threads', 'print/x $rip', 'x/1bx 0x7c00'].flatMap((each) => [
      '-ex',
      each,
    ]);
    const { stdout } = await run('gdb', ['-nx', '-batch', ...commands, '-c', core]);
    const registers = await monitor(source, 'info registers');
    const [, rip] = /[RE]IP=0*([0-9a-f]+)/.exec(registers)!;
    expect(stdout).toMatch(/\* 1 +LWP 1 /);
    expect(stdout).toMatch(/ {2}2 +LWP 2 /);
    expect(stdout).toContain(`$1 = 0x${rip}`);
    expect(stdout).toMatch(/0x7c00:\s+0xfa/); // cli, the boot sector's first instruction
  });

  for (const machine of ['pc-q35-5.2', 'pc-i440fx-5.2']) {
    peerTest(release, `lies where ${machine} has it`, async (peer) => {
      for (const mib of [2047, 2048, 2816, 2817, 3071, 3072, 3584, 3585, 6144]) {
        const usedBytes = mib * 2 ** 20;
        await using qemu = await QemuProcess.start(peer, { machine, ram: `${mib}M`, args: ['-S'] });
        const tree = await monitor(qemu, 'info mtree');
        const range = (name: string): [number, number] | undefined => {
          const found = new RegExp(
            `([0-9a-f]{16})-([0-9a-f]{16}) \\(prio 0, (?:i/o|ram)\\): alias ${name} `,
          ).exec(tree);
          if (found === null) return undefined;
          const [start, last] = found.slice(1).map((digits) => Number.parseInt(digits, 16));
          return [start!, last! + 1];
        };
        const { segments } = memoryMap(machine, [{ name: 'pc.ram', usedBytes }], []);
        const ends = segments.map(({ gpa, lengthBytes }) => [gpa, gpa + lengthBytes]);
        expect(ends[0], `${mib} MiB`).toEqual(range('ram-below-4g'));
        expect(ends[1], `${mib} MiB`).toEqual(range('ram-above-4g'));
      }
    });
  }
});
