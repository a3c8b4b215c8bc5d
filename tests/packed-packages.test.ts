import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BrowserModule, type BrowserResult, findChromium, runInBrowser } from './browser.ts';
import { installPacked, type PackedProject } from './packed-project.ts';
import { findExamples } from './readme-examples.ts';
import { listWorkspaces } from './workspace.ts';

const published = listWorkspaces().filter(({ kind }) => kind === 'package' || kind === 'app');
const packages = published.filter(({ kind }) => kind === 'package');
const examples = findExamples();
let project: PackedProject;

beforeAll(async () => {
  const unbuilt = published.filter(({ folder }) => !existsSync(join(folder, 'dist')));
  if (unbuilt.length > 0) {
    const names = unbuilt.map(({ title }) => title).join(', ');
    throw new Error(`Not built: ${names}. Run \`npm run build\` first`);
  }
  project = await installPacked(published);
});

afterAll(() => project?.remove());

function write(name: string, code: string): string {
  const path = join(project.folder, name);
  writeFileSync(path, code);
  return path;
}

describe('from its tarball, in an empty project', () => {
  it.each(packages)('$manifest.name is imported by Node', async ({ title, manifest }) => {
    const code = `import * as exports from ${JSON.stringify(manifest.name)};
console.log(JSON.stringify(Object.keys(exports)));`;
    const { stdout } = await project.runNode(write(`import-${title}.mjs`, code));
    expect(JSON.parse(stdout)).not.toEqual([]);
  });

  it('the command wherry starts and says its version', async () => {
    const manifest = join(project.folder, 'node_modules/wherry/package.json');
    const code = `import { execFileSync } from 'node:child_process';
import manifest from ${JSON.stringify(manifest)} with { type: 'json' };
const main = ${JSON.stringify(join(project.folder, 'node_modules/wherry'))} + '/' + manifest.bin.wherry;
const said = execFileSync(process.execPath, [main, '--version'], { encoding: 'utf8' });
if (!said.includes(manifest.version)) throw new Error(said);`;
    await project.runNode(write('command.mjs', code));
  });

  it.each(packages)('the README of $manifest.name has an example', ({ manifest }) => {
    expect(examples.filter(({ packageName }) => packageName === manifest.name)).not.toEqual([]);
  });

  it.each(examples)('the example at $title runs and prints something', async ({ title, code }) => {
    const name = `example-${title.replaceAll(/[^\w]/g, '-')}.ts`;
    const { stdout } = await project.runNode(write(name, code));
    expect(stdout.trim()).not.toBe('');
  });
});

/** Packages for Node alone; all others promise to run in a browser. */
const nodeOnly = ['@wherry/transport'];
const forBrowsers = packages.filter(({ manifest }) => !nodeOnly.includes(manifest.name));
const browserExamples = examples.filter(
  ({ packageName, needsNode }) =>
    !needsNode && forBrowsers.some(({ manifest }) => manifest.name === packageName),
);
/** What the examples do not show in a browser: shared memory, vCPUs in workers. */
const browserUses = ['page-engine-shared', 'machine'];
const chromium = findChromium();
const why = chromium === undefined ? ' (skipped: no Chromium in PATH or CHROME_PATH)' : '';

describe.skipIf(chromium === undefined)(`bundled, in Chromium${why}`, () => {
  const results = new Map<string, BrowserResult>();

  beforeAll(async () => {
    const modules: BrowserModule[] = [];
    for (const { manifest } of forBrowsers) {
      const code = `import * as exports from ${JSON.stringify(manifest.name)};
console.log(Object.keys(exports).length);`;
      modules.push({ name: manifest.name, code: await bundle(code) });
    }
    for (const { title, code } of browserExamples) {
      modules.push({ name: title, code: await bundle(code) });
    }
    for (const name of [...browserUses, 'vcpu-thread']) {
      const path = join(import.meta.dirname, 'browser', `${name}.ts`);
      const code = await bundle(readFileSync(path, 'utf8'));
      modules.push({ name, code, isWorker: name === 'vcpu-thread' });
    }
    for (const result of await runInBrowser(chromium ?? '', modules, 60_000)) {
      results.set(result.name, result);
    }
  }, 120_000);

  it.each(forBrowsers)('$manifest.name is imported', ({ manifest }) => {
    const { error, logged } = results.get(manifest.name) ?? {};
    expect(error).toBeUndefined();
    expect(Number(logged?.[0])).toBeGreaterThan(0);
  });

  it.each(browserUses)('the use in tests/browser/%s.ts works', (name) => {
    const { error, logged } = results.get(name) ?? {};
    expect(error).toBeUndefined();
    expect(Number(logged?.[0])).toBeGreaterThan(0);
  });

  it.each(browserExamples)('the example at $title runs and prints something', ({ title }) => {
    const { error, logged } = results.get(title) ?? {};
    expect(error).toBeUndefined();
    expect(logged).not.toEqual([]);
  });
});

/** Bundles an entry as a web page would: everything in one module, nothing left to resolve. */
async function bundle(code: string): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: code, loader: 'ts', resolveDir: project.folder, sourcefile: 'entry.ts' },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2024',
    write: false,
    logLevel: 'silent',
  });
  return outputFiles[0]?.text ?? '';
}
