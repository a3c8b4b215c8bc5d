// The tests of the engine once more, over its twin in plain TypeScript.

import { vi } from 'vitest';
import { twinEngine } from './twin/engine.ts';

vi.mock('../src/engine-module.ts', async (importOriginal) => ({
  ...(await importOriginal<typeof import('../src/engine-module.ts')>()),
  instantiateEngine: async (_: WebAssembly.Module, memory: WebAssembly.Memory) =>
    twinEngine(memory),
}));

await import('./bitmap.property.test.ts');
await import('./discard.property.test.ts');
await import('./hostile.property.test.ts');
await import('./preempt.property.test.ts');
await import('./round-trip.property.test.ts');
await import('../src/page-bitmap.test.ts');
await import('../src/ram-block.test.ts');
await import('../src/ram-receiver.test.ts');
await import('../src/ram-sender.test.ts');
