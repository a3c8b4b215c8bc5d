import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadDump, loadFixture } from '../../../conformance/fixtures.ts';

const main = join(import.meta.dirname, '../src/main.ts');
const releases = ['5.2', '7.2', '10.0', '11.1'];
let directory: string;
let dumps: string;
let stream: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'wherry-check-'));
  dumps = join(directory, 'dumps');
  mkdirSync(dumps);
  for (const release of releases) writeFileSync(dumpOf(release), loadDump(release));
  stream = join(directory, 'guest.qevm');
  writeFileSync(stream, loadFixture('11.1', 'precopy').stream);
});
afterAll(() => rmSync(directory, { recursive: true }));

const dumpOf = (release: string): string => join(dumps, `${release}.json`);

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function check(args: readonly string[], input?: string | Uint8Array): Promise<Run> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [main, 'check', ...args],
      { maxBuffer: 2 ** 26 },
      (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
    child.stdin?.on('error', () => {}); // wrong usage reads nothing
    child.stdin?.end(input);
  });
}

describe('wherry check', () => {
  test('shows what breaks between two dumps, and what to do', async () => {
    const args = [dumpOf('10.0'), dumpOf('11.1'), '--device', 'isa-vga'];
    const { code, stdout, stderr } = await check(args);
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
    expect(stdout.replaceAll(`${dumps}/`, '')).toMatchInlineSnapshot(`
      "Source  10.0.json: dump, pc-q35-5.2, 225 device types
      Dest    11.1.json: dump, pc-q35-5.2, 236 device types

      Breaks
        SECTION_RENAMED  isa-vga
          source: vga
          dest: vga-isa
          The section of this device has another name: the destination does not know
            the one that comes.
          → Leave the device out, or use the same release on both sides.
          QEMU says: Unknown savevm section or instance 'vga' 0

      Not compatible: 1 breaks.
      "
    `);
  });

  test('shows one finding for the devices that embed the same state', async () => {
    const args = [dumpOf('11.1'), dumpOf('10.0'), '--rule', 'FIELD_MISSING'];
    const { stdout } = await check(args);
    expect(stdout.match(/FIELD_MISSING/g)).toHaveLength(1);
    expect(stdout).toContain('in am53c974, sysbus-esp, dc390');
  });

  test('a stream loads where everything in it is known', async () => {
    const { code, stdout } = await check([stream, dumpOf('5.2')]);
    expect(code).toBe(0);
    expect(stdout).toContain('stream, pc-q35-5.2, 31 sections');
    expect(stdout).toMatch(/^Compatible: \d+ fine \(--all shows them\)\.$/m);
  });

  test('reads either side from standard input', async () => {
    const dump = await check([stream, '-'], loadDump('11.1'));
    expect(dump).toMatchObject({ code: 0, stderr: '' });
    const bytes = loadFixture('11.1', 'precopy').stream;
    expect(await check(['-', dumpOf('11.1')], bytes)).toMatchObject({ code: 0, stderr: '' });
  });

  test('ends with 3 when it depends on the guest, and checks the way back', async () => {
    const args = [dumpOf('10.0'), dumpOf('7.2'), '--device', 'sb16'];
    expect((await check(args)).code).toBe(3);
    expect((await check([...args, '--unused-age', '6'])).code).toBe(0);
    const { stdout } = await check([...args, '--both', '--all', '--history', dumps]);
    expect(stdout).toContain('UNUSED_DROPPED (on the way back)');
    expect(stdout.replace(/\s+/g, ' ')).toContain('7.2 (irq, dma, hdma, port, ver)');
  });

  test('takes further statements from a file', async () => {
    const facts = join(directory, 'facts.json');
    const fields = ['irq', 'dma', 'hdma', 'port', 'ver'];
    const unused = fields.map((field) => ({
      description: 'sb16',
      field,
      survivesZero: 'the board sets it',
    }));
    writeFileSync(facts, JSON.stringify({ unused }));
    const args = [dumpOf('10.0'), dumpOf('7.2'), '--device', 'sb16', '--facts', facts];
    expect((await check(args)).code).toBe(0);
  });

  test('prints one JSON object', async () => {
    const { code, stdout } = await check([dumpOf('10.0'), dumpOf('11.1'), '--json']);
    expect(code).toBe(1);
    const report = JSON.parse(stdout) as { findings: { verdict: string; path: string[] }[] };
    expect(report).toMatchObject({
      version: 1,
      source: { kind: 'dump', machine: 'pc-q35-5.2', types: 225 },
      dest: { kind: 'dump', types: 236 },
      verdict: 'breaks',
      counts: { breaks: 2 },
    });
    expect(report.findings[0]).toEqual({
      verdict: 'breaks',
      rule: 'DESCRIPTION_MISSING',
      direction: 'source-to-dest',
      path: ['nvme'],
      source: '0 fields',
      dest: '34 fields',
      why: expect.any(String),
      whatToDo: expect.any(String),
    });
  });

  test('shows a matrix of releases', async () => {
    const { code, stdout } = await check(['--matrix', dumps, '--device', 'e1000e']);
    expect(code).toBe(3);
    expect(stdout).toMatchInlineSnapshot(`
      "Machine type pc-q35-5.2
      ┌───────────┬───────────────┬───────────────┬──────┬──────┐
      │ from \\ to │           5.2 │           7.2 │ 10.0 │ 11.1 │
      │ 5.2       │             · │          fine │ fine │ fine │
      │ 7.2       │          fine │             · │ fine │ fine │
      │ 10.0      │ may break (1) │ may break (1) │    · │ fine │
      │ 11.1      │ may break (1) │ may break (1) │ fine │    · │
      └───────────┴───────────────┴───────────────┴──────┴──────┘
      In brackets: how many device types (a guest without them is not concerned).
      "
    `);
    const json = await check(['--matrix', dumps, '--json', '--machine', 'pc-q35-8.0']);
    const { matrices } = JSON.parse(json.stdout) as {
      matrices: { machine: string; pairs: { source: string; dest: string; verdict: string }[] }[];
    };
    expect(matrices).toHaveLength(1);
    expect(matrices[0]!.machine).toBe('pc-q35-8.0');
    const verdicts = matrices[0]!.pairs.map((p) => `${p.source} ${p.dest} ${p.verdict}`);
    expect(verdicts).toContain('7.2 10.0 absent');
    expect(verdicts).toContain('10.0 11.1 breaks');
  });

  test('looks at the devices of a guest alone', async () => {
    const { code, stdout } = await check(['--matrix', dumps, '--guest', stream]);
    expect(code).toBe(3); // older releases lack types whose sections their controllers send
    expect(stdout).not.toContain('breaks');
    const pair = [dumpOf('10.0'), dumpOf('11.1')];
    expect((await check([...pair, '--guest', stream])).code).toBe(0);
  });

  test.each([
    ['no sides', [], /^wherry: Two sides are needed/],
    ['a file that is not there', ['nothing', 'DUMP'], /^wherry: Cannot read nothing: there is no/],
    ['a directory', ['DIR', 'DUMP'], /: it is a directory; name a file/],
    ['a file of another kind', ['MAIN', 'DUMP'], /neither a -dump-vmstate nor a migration stream/],
    ['both sides on standard input', ['-', '-'], /^wherry: Only one side/],
    ['a rule that does not exist', ['DUMP', 'DUMP', '--rule', 'X'], /There are MACHINE_TYPE, /],
    ['a device that does not exist', ['DUMP', 'DUMP', '--device', 'x'], /no device that matches x/],
    ['years that are none', ['DUMP', 'DUMP', '--unused-age', 'six'], /It takes whole years/],
    [
      'a matrix and a file',
      ['DUMP', '--matrix', 'DIR'],
      /^wherry: --matrix takes no further files/,
    ],
    [
      'a matrix of no such device',
      ['--matrix', 'DIR', '--device', 'x'],
      /no device that matches x/,
    ],
    [
      'a machine that no release has',
      ['--matrix', 'DIR', '--machine', 'pc-q35-99.0'],
      /No two rel/,
    ],
    ['a guest that is none', ['DUMP', 'DUMP', '--guest', 'DUMP'], /--guest takes a stream/],
    ['a matrix without dumps', ['--matrix', 'EMPTY'], /has no dump named by its release/],
  ])('wrong usage is one line and exit 2: %s', async (_what, args, message) => {
    const places: Record<string, string> = {
      DUMP: dumpOf('10.0'),
      DIR: dumps,
      MAIN: main,
      EMPTY: import.meta.dirname,
    };
    const { code, stdout, stderr } = await check(args.map((arg) => places[arg] ?? arg));
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  test('a broken stream is refused with where it breaks', async () => {
    const bytes = loadFixture('11.1', 'precopy').stream.subarray(0, 30_000);
    const { code, stderr } = await check(['-', dumpOf('11.1')], bytes);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^wherry: standard input: the stream is broken at 0x7530 \(30000\)/);
  });
});
