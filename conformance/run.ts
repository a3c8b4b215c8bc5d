// Runs the conformance suite: all of it, or the tests whose names match a pattern.
//
// usage: node conformance/run.ts [--only PATTERN] [--json FILE] [VITEST-ARGUMENT…]
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const here = import.meta.dirname;
const { values, tokens } = parseArgs({
  options: { only: { type: 'string' }, json: { type: 'string' } },
  strict: false,
  tokens: true,
});
const passedOn = process.argv.slice(2).filter((_, i) => !tokens.some((token) => isOurs(token, i)));

function isOurs(token: (typeof tokens)[number], index: number): boolean {
  if (token.kind !== 'option' || !['only', 'json'].includes(token.name)) return false;
  return index === token.index || (index === token.index + 1 && token.inlineValue === false);
}

const { only, json } = values;
if (only === true || json === true) {
  console.error(`--${only === true ? 'only needs a pattern' : 'json needs a file'}`);
  process.exit(2);
}
const hasReporter = passedOn.some((argument) => argument.startsWith('--reporter'));
const vitest = join(
  dirname(createRequire(import.meta.url).resolve('vitest/package.json')),
  'vitest.mjs',
);
const { status } = spawnSync(
  process.execPath,
  [
    ...[vitest, 'run', '--config', join(here, 'vitest.config.ts')],
    ...(hasReporter ? [] : ['--reporter=default']),
    `--reporter=${join(here, 'matrix/reporter.ts')}`,
    ...(typeof only === 'string' ? ['-t', only] : []),
    ...passedOn,
  ],
  {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...(typeof json === 'string' ? { WHERRY_MATRIX_JSON: resolve(json) } : {}),
    },
  },
);
process.exitCode = status ?? 1;
