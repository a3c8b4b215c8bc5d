import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { ByteWriter } from '@wherry/bytes';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
import { SyntheticStream, smallStream } from '../../../packages/snapshot/test/synthetic-stream.ts';

const main = join(import.meta.dirname, '../src/main.ts');
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'wherry-inspect-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function write(name: string, bytes: Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function inspect(args: readonly string[], input?: Uint8Array): Promise<Run> {
  return new Promise((resolve) => {
    const options = { maxBuffer: 2 ** 26 };
    const child = execFile(
      process.execPath,
      [main, 'inspect', ...args],
      options,
      (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
    child.stdin?.on('error', () => {}); // a broken stream is not read to its end
    child.stdin?.end(input);
  });
}

describe('wherry inspect', () => {
  test('shows everything of a small stream', async () => {
    const { code, stdout, stderr } = await inspect([write('small.qevm', smallStream())]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatchInlineSnapshot(`
      "Migration stream, version 3
      Machine type     pc-q35-5.2

      RAM: 2 blocks, 20 KiB, target page 4096 bytes
      ┌───────────┬────────┬──────┬──────┬────────┐
      │ RAM block │   size │ page │ zero │ xbzrle │
      │ pc.ram    │ 16 KiB │    2 │    1 │      1 │
      │ rom       │  4 KiB │    0 │    1 │      0 │
      └───────────┴────────┴──────┴──────┴────────┘

      Items in their order
        0x17        start    ram (section 2), 65 bytes
        0x58        part     ram (section 2) × 2, 8287 bytes
        0x20b7      end      ram (section 2), 18 bytes
        0x20c9      full     1 device section, 54 bytes
        0x20ff      eof

      Devices: 1
        toy, instance 0, version 3 (section 9, 32 bytes at 0x20c9)
          id = 3735928559 (0xdeadbeef)
          when = 18446744073709551615 (0xffffffffffffffff)
          counts[2] = 0, 5
          inner
            on = true
          subsection toy/more
            level = 126

      The stream ends at 0x22e2 (8930): EOF at 0x20ff (8447), then the vmdesc, 477 bytes.
      Nothing follows it.
      "
    `);
  });

  test('reads standard input', async () => {
    const fromFile = await inspect([write('small.qevm', smallStream())]);
    expect(await inspect(['-'], smallStream())).toEqual(fromFile);
  });

  test('prints the same as one JSON object', async () => {
    const { stream } = loadFixture('11.1', 'precopy-devices');
    const { code, stdout } = await inspect([write('devices.qevm', stream), '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      version: 3,
      configuration: { machineType: 'pc-q35-5.2' },
      ram: { targetPageBytes: 4096, multifdFlushes: 0 },
      end: { endOffset: stream.length, trailingBytes: 0 },
    });
    expect(report.error).toBeUndefined();
    const timer = report.devices.find(({ idstr }: { idstr: string }) => idstr === 'timer');
    expect(timer.fields.map(({ name }: { name: string }) => name)).toEqual([
      'cpu_ticks_offset',
      'unused',
      'cpu_clock_offset',
    ]);
  });

  test('gives large numbers as text and bytes as hexadecimal in JSON', async () => {
    const { stdout } = await inspect(['-', '--json'], smallStream());
    const [toy] = JSON.parse(stdout).devices;
    expect(toy.fields[1]).toMatchObject({ name: 'when', value: '18446744073709551615' });
    const [raw] = JSON.parse(
      (
        await inspect(
          ['-', '--json'],
          new SyntheticStream().begin().device('raw', 1, Uint8Array.of(1, 0xab)).end(),
        )
      ).stdout,
    ).devices;
    expect(raw).toMatchObject({ bytes: '01ab', note: 'not decoded: the stream has no vmdesc' });
  });

  test('shows what comes before a break, then one diagnosis', async () => {
    const { code, stdout, stderr } = await inspect(['-'], smallStream().subarray(0, 300));
    expect(code).toBe(1);
    expect(stdout).toContain('pc.ram');
    expect(stdout).toContain('The stream breaks off here.');
    expect(stderr).toMatchInlineSnapshot(`
      "wherry: standard input: The input ends too early
        offset    0x12c (300)
        in        ram (part of section 2) > pc.ram > page 0x0
        expected  3904 more bytes
        found     0
        likely    The sender stopped or the connection was cut: look at the sender’s own log
        do        Look at the sender’s log and at the free space of the disk. Start the migration again.
        cause     TRUNCATED_IN_RAM (wherry explain TRUNCATED_IN_RAM)
      "
    `);
  });

  test('tells of a break in JSON too', async () => {
    const { code, stdout } = await inspect(['-', '--json'], smallStream().subarray(0, 300));
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      end: null,
      error: {
        code: 'UNEXPECTED_END',
        offset: 300,
        path: ['ram (part of section 2)', 'pc.ram', 'page 0x0'],
      },
    });
  });

  test.each([
    ['a gzip file', Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0), 'cannot be unpacked'],
    ['an empty file', new Uint8Array(0), 'ends too early'],
    ['a text', Buffer.from('hello, world'), 'not a migration stream'],
  ])('refuses %s', async (_, bytes, message) => {
    const { code, stdout, stderr } = await inspect([write('other', bytes)]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
  });

  test.each([
    ['a missing file', ['/nowhere/stream'], 'no such file'],
    ['a directory', [import.meta.dirname], 'directory'],
    ['no file', [], 'Name a file'],
    ['standard input twice', ['-', '-'], 'once only'],
    ['an unknown tool', ['-', '--as', 'virsh'], 'analyze-migration'],
    ['an unknown dump', ['-', '-d', 'memory'], 'state or desc'],
    ['two formats', ['-', '--json', '-d', 'state'], 'two formats'],
    ['an offset that is none', ['-', '--at', 'end'], '0x1a2b'],
    ['an unknown option', ['-', '--yaml'], 'unknown option'],
  ])('calls %s wrong usage', async (_, args, message) => {
    const { code, stderr } = await inspect(args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  test('shows chosen devices, of several files', async () => {
    const { stream } = loadFixture('11.1', 'precopy-devices');
    const paths = [write('devices.qevm', stream), write('small.qevm', smallStream())];
    const { code, stdout } = await inspect([...paths, '--device', 't?m*']);
    expect(code).toBe(0);
    expect(stdout).toContain('devices.qevm\nMigration stream');
    expect(stdout).toContain('  timer, instance 0, version 2');
    expect(stdout).not.toContain('  apic,');
    expect(stdout).toContain('none of them matches --device');
    const objects = (await inspect([...paths, '--json', '--device', 'timer'])).stdout;
    const [first, second] = objects.split(/\n(?=\{"report")/).map((text) => JSON.parse(text));
    expect(first).toMatchObject({ report: 1, file: paths[0], devices: [{ idstr: 'timer' }] });
    expect(second).toMatchObject({ report: 1, file: paths[1], devices: [] });
  });

  test('says which of several files is broken, and reads the others', async () => {
    const whole = write('small.qevm', smallStream());
    const broken = write('broken.qevm', smallStream().subarray(0, 300));
    const { code, stdout, stderr } = await inspect([broken, whole]);
    expect(code).toBe(1);
    expect(stderr).toContain('broken.qevm: The input ends too early');
    expect(stderr).not.toContain('small.qevm');
    expect(stdout).toContain('The stream ends at 0x22e2');
  });

  test('says what a byte is', async () => {
    const path = write('small.qevm', smallStream());
    expect((await inspect([path, '--at', '0x20dd'])).stdout).toMatchInlineSnapshot(`
      "Byte 0x20dd (8413)
        is        Byte 3 of the field id, type uint32
        in        toy (full of section 9) > id
        range     0x20da (8410) to 0x20de (8414), 4 bytes
        value     3735928559 (0xdeadbeef)
      "
    `);
    expect(await inspect([path, '--at', '999999'])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('no such byte'),
    });
    const { stdout } = await inspect([path, '--at', '3', '--json']);
    expect(JSON.parse(stdout).located).toMatchObject({ offset: 3, path: ['header'] });
  });

  test('writes RAM to files', async () => {
    const ram = join(directory, 'ram');
    const args = [write('small.qevm', smallStream()), '--ram', ram];
    const { code, stdout } = await inspect(args);
    expect(code).toBe(0);
    const page = readFileSync(join(ram, 'pc.ram'));
    expect([page.length, page[0], page[0x1fff]]).toEqual([16384, 7, 0x7e]);
    const sha256 = createHash('sha256').update(page).digest('hex');
    expect(stdout).toContain(`SHA-256 ${sha256}  ${join(ram, 'pc.ram')}`);
    expect(await inspect(args)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--force'),
    });
    expect((await inspect([...args, '--force'])).code).toBe(0);
  });

  test.each([
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
  ])('unpacks %s', async (name, pack) => {
    const { code, stdout } = await inspect(['-', '--json'], pack(smallStream()));
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ packed: name, end: { endOffset: 8930 } });
  });

  test('decodes a postcopy stream by another stream, or by a dump', async () => {
    const postcopy = write('postcopy.qevm', loadFixture('11.1', 'postcopy').stream);
    const precopy = write('precopy.qevm', loadFixture('11.1', 'precopy').stream);
    const dumps = join(import.meta.dirname, '../../../conformance/fixtures/11.1/dumps');
    for (const schema of [precopy, join(dumps, 'pc-q35-5.2.json.gz')]) {
      const { code, stdout } = await inspect([postcopy, '--json', '--schema', schema]);
      expect(code).toBe(0);
      const { devices } = JSON.parse(stdout);
      const i8259 = devices.find(({ idstr }: { idstr: string }) => idstr === 'i8259');
      expect(i8259).toMatchObject({ by: 'schema' });
      expect(i8259.fields.map(({ name }: { name: string }) => name)).toContain('irr');
    }
    expect(await inspect([postcopy, '--schema', postcopy])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('has no vmdesc'),
    });
  });

  test("prints what QEMU's analyser prints, by its own options too", async () => {
    const path = write('small.qevm', smallStream());
    const state = await inspect([path, '--as', 'analyze-migration']);
    expect(state).toMatchObject({ code: 0, stderr: '' });
    expect(state.stdout).toMatchInlineSnapshot(`
      "{
          "ram (2)": {
              "section sizes": {
                  "pc.ram": "0x0000000000004000",
                  "rom": "0x0000000000001000"
              }
          },
          "toy (9)": {
              "id": "0xdeadbeef",
              "when": "0xffffffffffffffff",
              "counts": [
                  "0x0000",
                  "0x0005"
              ],
              "inner": {
                  "on": true
              },
              "toy/more": {
                  "level": "0x7e"
              }
          }
      }
      "
    `);
    expect(await inspect(['-f', path])).toEqual(state);
    const description = await inspect(['-f', path, '-d', 'desc']);
    expect(description.stdout).toMatch(/^\{\n {4}"page_size": 4096,\n {4}"devices": \[\n/);
    expect(await inspect([path, '--as', 'analyze-migration', '--desc'])).toEqual(description);
  });

  test("keeps a section that its description does not fit out of the analyser's format", async () => {
    const toy = { name: 'toy', instance_id: 0, vmsd_name: 'toy', version: 1 };
    const fields = [{ name: 'level', type: 'uint32', size: 4 }];
    const bytes = new SyntheticStream()
      .begin()
      .device('toy', 1, new Uint8Array(2))
      .end({ page_size: 4096, devices: [{ ...toy, fields }] });
    const { code, stdout, stderr } = await inspect(['-', '--as', 'analyze-migration'], bytes);
    expect([code, JSON.parse(stdout)]).toEqual([1, { 'toy (1)': null }]);
    expect(stderr).toContain('toy');
  });

  test('does not let a name steer the terminal', async () => {
    const body = new ByteWriter().u32(1).finish();
    const bytes = new SyntheticStream().begin().device('\u001b[2J\u009b1m', 1, body).end();
    const { stdout } = await inspect(['-'], bytes);
    expect(stdout).toContain('\\x1b[2J\\x9b1m');
    expect(stdout).not.toContain('\u001b');
  });

  test('stops quietly when its reader has enough', async () => {
    const { stream } = loadFixture('11.1', 'precopy-devices');
    const path = write('devices.qevm', stream);
    const child = spawn(process.execPath, [main, 'inspect', path, '--json']);
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    child.stdout.destroy();
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });
});
