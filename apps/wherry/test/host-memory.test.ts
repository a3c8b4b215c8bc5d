import { readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { Lab } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

async function residentMib(options: readonly string[]): Promise<number> {
  const guest = ['--ram', 'pc.ram=256M', '--vcpu', 'idle', '--incoming', 'defer'];
  const { process: started } = await lab.host([...guest, ...options]);
  const status = readFileSync(`/proc/${started.child.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) / 1024;
}

test.skipIf(process.platform !== 'linux')(
  'a destination takes memory as pages arrive, with --mem-prealloc at the start',
  async () => {
    const without = await residentMib([]);
    expect(without).toBeLessThan(200);
    expect((await residentMib(['--mem-prealloc'])) - without).toBeGreaterThan(240);
  },
);
