import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const main = join(import.meta.dirname, '../src/main.ts');

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function explain(args: readonly string[], input = ''): Promise<Run> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [main, 'explain', ...args], (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
    child.stdin?.end(input);
  });
}

const UNKNOWN = "Unknown savevm section or instance 'x' 0";

describe('wherry explain', () => {
  test('puts the names of a message into its explanation', async () => {
    expect(await explain([UNKNOWN])).toMatchObject({ code: 0, stderr: '' });
    expect((await explain([UNKNOWN])).stdout).toMatchInlineSnapshot(`
      "UNKNOWN_SECTION
        what  The stream holds the state of "x", instance 0, and the destination has
              no such device
        why   The destination was started without it, or with it at another address;
              or it was plugged in while the source ran and the destination’s command
              line does not have it.
        do    Give the destination the same devices at the same addresses (write addr=
              and bus= for each), also those that were hot-plugged. Or unplug the
              device at the source.
      "
    `);
  });

  test('explains every known line of a log, in its order', async () => {
    const log = `starting\nqemu: ${UNKNOWN}\r\n\u001b[2Jqemu: load of migration failed: Invalid argument\n`;
    const { code, stdout } = await explain(['-', '--json'], log);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      version: 1,
      explained: [
        { line: 2, code: 'UNKNOWN_SECTION', names: { device: 'x', instance: '0' } },
        { line: 3, code: 'LOAD_FAILED_EINVAL' },
      ],
    });
    const text = (await explain(['-'], log)).stdout;
    expect(text).toContain(`2: qemu: ${UNKNOWN}\nUNKNOWN_SECTION`);
    expect(text).not.toContain('\u001b');
  });

  test('explains a code, and lists them all', async () => {
    expect((await explain(['footer_missing'])).stdout).toMatch(/^FOOTER_MISSING\n {2}what/);
    expect((await explain(['--list'])).stdout).toContain('\n  FOOTER_MISSING  ');
    const { causes } = JSON.parse((await explain(['--list', '--json'])).stdout);
    expect(causes.length).toBeGreaterThan(100);
    expect(causes[0]).toMatchObject({ code: 'NOT_A_STREAM', errors: ['NOT_A_STREAM'] });
  });

  test('says when it knows nothing', async () => {
    const nothing = await explain(['all', 'is', 'well']);
    expect(nothing).toMatchObject({ code: 1, stdout: '' });
    expect(nothing.stderr).toContain('does not know this message');
    expect((await explain(['-'], 'all is well\n')).code).toBe(1);
  });

  test.each([
    ['no message', []],
    ['a message to --list', ['--list', 'x']],
  ])('calls %s wrong usage', async (_, args) => {
    expect((await explain(args)).code).toBe(2);
  });
});
