import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { smallStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import { CALM, expectGuestRuns, Lab, untilStatus } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

async function smallFile(): Promise<string> {
  const file = await lab.path('in.qevm');
  writeFileSync(file, smallStream());
  return file;
}

describe('wherry convert', () => {
  test('writes a stream that a host goes on with', async () => {
    const source = await lab.host(CALM);
    const [file, mapped, out] = [
      await lab.path('guest'),
      await lab.path('mapped'),
      await lab.path('out'),
    ];
    await source.client.execute('migrate', { uri: `exec:cat > ${file}` });
    await untilStatus(source, 'completed');
    expect((await lab.run(['convert', file, mapped, '--to', 'mapped-ram'])).code).toBe(0);
    const { code, stdout, stderr } = await lab.run(['convert', mapped, out, '--to', 'stream']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/format +│ +stream/);
    expect(statSync(out).mode & 0o777).toBe(0o600);
    const host = await lab.host([...CALM, '--incoming', `exec:cat ${out}`]);
    await untilStatus(host, 'completed');
    await expectGuestRuns(host);
  });

  test('writes memory where it is told to', async () => {
    const [file, out] = [await smallFile(), await lab.path('out.raw')];
    const argv = ['convert', file, out, '--to', 'raw', '--json'];
    const maps = ['--map', 'pc.ram@4K-8K=64K', '--map', 'pc.ram@0-0x1000=0x14000'];
    const { code, stdout } = await lab.run([...argv, ...maps]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ status: 'completed', format: 'raw', file: out },
      ...{ lengthBytes: 0x15000, diskBytes: 8192 },
    });
    const raw = readFileSync(out);
    expect([raw[0], raw[0x10000], raw[0x10001], raw[0x14000]]).toEqual([0, 9, 0x7e, 7]);
  });

  test('writes a core file, of a named processor too', async () => {
    const [file, out] = [await smallFile(), await lab.path('core')];
    const first = await lab.run(['convert', file, out, '--to', 'elf', '--json']);
    // The stream has no vCPU: registers are no reason to keep the memory.
    expect(JSON.parse(first.stdout)).toMatchObject({ format: 'elf', vcpus: 0 });
    expect(readFileSync(out).readUInt16LE(18)).toBe(62);
    const argv = ['convert', file, out, '--to', 'elf', '--arch', 'riscv64', '--map', 'rom=2G'];
    expect((await lab.run(argv)).code).toBe(0);
    const core = readFileSync(out);
    expect(core.readUInt16LE(18)).toBe(243);
    expect(core.readBigUInt64LE(64 + 56 + 24)).toBe(0x8000_0000n);
  });

  test.each([
    [['--to', 'qcow2'], 2, 'Allowed choices are stream, mapped-ram, raw, elf'],
    [[], 2, "required option '--to <format>' not specified"],
    [['--to', 'stream', '--map', 'rom=0'], 2, '--map and --arch are for raw and elf'],
    [['--to', 'raw', '--map', 'rom'], 2, "'rom' is no BLOCK=ADDRESS"],
    [['--to', 'raw', '--map', 'none=0'], 2, 'it has pc.ram, rom'],
  ])('with %j ends with %i, and leaves nothing behind', async (args, code, said) => {
    const [file, out] = [await smallFile(), await lab.path('out')];
    const ended = await lab.run(['convert', file, out, ...args]);
    expect(ended).toMatchObject({ code, stderr: expect.stringContaining(said) });
    expect(readdirSync(dirname(out))).toEqual([expect.stringContaining('in.qevm')]);
  });

  test('of what is no whole guest leaves what was there', async () => {
    const [file, out] = [await smallFile(), await lab.path('out')];
    writeFileSync(file, smallStream().subarray(0, 5000));
    writeFileSync(out, 'older');
    const { code, stderr } = await lab.run(['convert', file, out, '--to', 'stream']);
    expect(code).toBe(1);
    expect(stderr).toContain('The input ends too early');
    expect(readFileSync(out, 'utf8')).toBe('older');
  });

  test('does not write over a device', async () => {
    const { code, stderr } = await lab.run([
      ...['convert', await smallFile(), '/dev/full', '--to', 'stream'],
    ]);
    expect(code).toBe(2);
    expect(stderr).toContain('it is no regular file');
  });
});
