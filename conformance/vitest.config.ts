import { join } from 'node:path';
import { defineConfig, type ViteUserConfig } from 'vitest/config';

const config: ViteUserConfig = defineConfig({
  test: {
    root: import.meta.dirname,
    include: ['tests/**/*.test.ts'],
    globalSetup: [join(import.meta.dirname, 'global-setup.ts')],
    fileParallelism: false, // the peers are processes that want the processors for themselves
    testTimeout: 60_000,
  },
});

export default config;
