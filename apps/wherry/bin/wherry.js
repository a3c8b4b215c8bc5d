#!/usr/bin/env node
import { existsSync } from 'node:fs';
import module from 'node:module';

// In a clone this file is there, and linked by npm, before the command is built.
const main = new URL('../dist/main.js', import.meta.url);
if (existsSync(main)) {
  // Half of a short command's time is compiling. Node 20 has none: main tells that it is too old.
  module.enableCompileCache?.();
  await import(main.href);
} else {
  console.error('wherry: the command is not built yet: run npm run build');
  process.exitCode = 2;
}
