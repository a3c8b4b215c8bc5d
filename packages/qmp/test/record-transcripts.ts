/**
 * Records what a real QEMU replies to `transcript-cases.ts`, on standard output. The fixture is
 * QEMU 7.2's: `npm run record-transcripts -w packages/qmp` makes it anew.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { toJsonText } from '../src/index.ts';
import { replay } from './replay.ts';
import { connectUnix } from './socket-channel.ts';
import { transcriptCases } from './transcript-cases.ts';

const directory = mkdtempSync(join(tmpdir(), 'qmp-record-'));
const path = join(directory, 'qmp.sock');
const qemu = spawn(
  process.argv[2] ?? 'qemu-system-x86_64',
  ['-M', 'none', '-nodefaults', '-display', 'none', '-qmp', `unix:${path},server=on,wait=off`],
  { stdio: ['ignore', 'inherit', 'inherit'] },
);

try {
  while (!existsSync(path)) await sleep(20);
  const version = await replay(connectUnix(path), '{"execute": "query-version"}', false);
  const { qemu: triple } = version[0]!['return'] as { qemu: unknown };
  const cases: string[] = [];
  for (const { name, input, isRaw, newer } of transcriptCases) {
    const replies = await replay(connectUnix(path), input, isRaw === true);
    cases.push(toJsonText({ name, input, isRaw, replies, newer }));
  }
  process.stdout.write(`{"qemu": ${toJsonText(triple)}, "cases": [\n${cases.join(',\n')}\n]}\n`);
} finally {
  qemu.kill();
  rmSync(directory, { recursive: true });
}
