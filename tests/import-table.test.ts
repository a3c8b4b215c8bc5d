import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findImports, isNodeModule, packageOf, readSources } from './imports.ts';
import { listWorkspaces, root, type Workspace } from './workspace.ts';

/** What one row of the table allows; `any` for all packages. */
interface Rule {
  readonly any: boolean;
  readonly packages: ReadonlySet<string>;
  readonly typesOnly: ReadonlySet<string>;
}

/** Reads the table `| package | imports |` of ARCHITECTURE.md: the one place that says the rule. */
function readTable(markdown: string): Map<string, Rule> {
  const rows = new Map<string, Rule>();
  const lines = markdown.split('\n');
  const head = lines.findIndex((line) => /^\|\s*package\s*\|\s*imports\s*\|\s*$/.test(line));
  for (const line of lines.slice(head + 2)) {
    const cells = /^\|([^|]*)\|([^|]*)\|\s*$/.exec(line);
    if (head < 0 || cells === null) break;
    const allowed = (cells[2] ?? '').trim();
    const names = allowed === 'nothing of ours' || allowed === 'anything' ? '' : allowed;
    const rule = { any: allowed === 'anything', packages: new Set(''), typesOnly: new Set('') };
    for (const name of names.split(/[,;]/).map((part) => part.trim())) {
      const typesOnly = /^([\w-]+) \(types only\)$/.exec(name)?.[1];
      if (typesOnly !== undefined) rule.typesOnly.add(typesOnly);
      else if (/^[\w-]+$/.test(name)) rule.packages.add(name);
      else if (name !== '') throw new Error(`ARCHITECTURE.md: the table has an odd cell: ${name}`);
    }
    for (const row of (cells[1] ?? '').split(',')) rows.set(row.trim(), rule);
  }
  return rows;
}

const workspaces = listWorkspaces();
const packages = workspaces.filter(({ kind }) => kind === 'package');
const architecture = join(root, 'ARCHITECTURE.md');
const table = readTable(existsSync(architecture) ? readFileSync(architecture, 'utf8') : '');
const rowOf = ({ kind, title }: Workspace): Rule | undefined =>
  table.get(kind === 'app' ? 'apps' : title);
const isOurs = (name: string): boolean => workspaces.some(({ manifest }) => manifest.name === name);

/** The folders of a workspace whose code is shipped, or all of it where nothing is. */
function sourceFolders({ kind, folder }: Workspace): string[] {
  if (kind === 'benchmarks' || kind === 'conformance') return [folder];
  return [join(folder, 'src'), join(folder, 'assembly')].filter((path) => existsSync(path));
}

it('finds imports of every form, and none in comments', () => {
  const text = `
    import type { A } from 'a'; // import 'no'
    import { type B, c } from "b";
    import {
      d,
    } from 'd/sub';
    export type { E } from 'e';
    export { f } from '@x/f';
    import './g.ts';
    /* import 'no'; */
    const url = 'http://host'; const h = await import('h');
    import type, { i } from 'i';
    import * as j from 'node:fs';`;
  expect(findImports(text).map((found) => [found.specifier, found.isTypeOnly])).toEqual([
    ['a', true],
    ['b', false],
    ['d/sub', false],
    ['e', true],
    ['@x/f', false],
    ['./g.ts', false],
    ['i', false],
    ['node:fs', false],
    ['h', false],
  ]);
  expect(packageOf('@x/f/sub')).toBe('@x/f');
  expect(packageOf('d/sub')).toBe('d');
});

describe('the import table of ARCHITECTURE.md', () => {
  it('has a row for every workspace, and names no package that it has no row for', () => {
    expect(workspaces.filter((each) => rowOf(each) === undefined).map((w) => w.title)).toEqual([]);
    const named = [...table.values()].flatMap((rule) => [...rule.packages, ...rule.typesOnly]);
    expect(named.filter((name) => !table.has(name))).toEqual([]);
  });

  it.each(packages)('$title imports what its row allows', (workspace) => {
    const rule = rowOf(workspace);
    const wrong: string[] = [];
    for (const folder of sourceFolders(workspace)) {
      for (const { path, imports } of readSources(folder)) {
        for (const { specifier, isTypeOnly } of imports) {
          const target = specifier.startsWith('.')
            ? /^packages\/([^/]+)\//.exec(
                relative(root, resolve(folder, dirname(path), specifier)),
              )?.[1]
            : /^@wherry\/([^/]+)/.exec(specifier)?.[1];
          if (target === undefined || target === workspace.title || rule?.any) continue;
          const allowed = rule?.packages.has(target) || (isTypeOnly && rule?.typesOnly.has(target));
          if (!allowed) wrong.push(`${path}: ${isTypeOnly ? 'types of ' : ''}${specifier}`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it.each(packages.filter(({ title }) => title !== 'transport'))(
    '$title runs in a browser: no module of Node, no Buffer',
    (workspace) => {
      const wrong = readSources(join(workspace.folder, 'src')).flatMap((file) => [
        ...file.imports
          .filter(({ specifier }) => isNodeModule(specifier))
          .map(({ specifier }) => `${file.path}: ${specifier}`),
        ...(file.usesBuffer ? [`${file.path}: Buffer`] : []),
      ]);
      expect(wrong).toEqual([]);
    },
  );
});

describe('dependencies', () => {
  it.each(workspaces.filter(({ kind }) => kind === 'package' || kind === 'app'))(
    '$manifest.name declares exactly what its source imports, and imports no file of another',
    (workspace) => {
      const imported = new Set<string>();
      const outside: string[] = [];
      const folder = join(workspace.folder, 'src');
      for (const { path, imports } of readSources(folder)) {
        for (const { specifier } of imports) {
          const name = packageOf(specifier);
          if (name !== undefined) imported.add(name);
          const target = resolve(folder, dirname(path), specifier);
          if (specifier.startsWith('.') && relative(workspace.folder, target).startsWith('..')) {
            outside.push(`${path}: ${specifier}`);
          }
        }
      }
      // What is ours is built into the command.
      const bundled = workspace.kind === 'app' ? workspace.manifest.devDependencies : {};
      const { dependencies = {}, peerDependencies = {} } = workspace.manifest;
      const declared = Object.keys({ ...dependencies, ...peerDependencies, ...bundled });
      expect(outside).toEqual([]);
      expect([...imported].sort()).toEqual(declared.sort());
    },
  );

  it.each(workspaces.filter(({ kind }) => kind === 'benchmarks' || kind === 'conformance'))(
    '$title declares the packages of ours that it imports, so that they are built before it',
    ({ folder, manifest }) => {
      const imported = readSources(folder)
        .flatMap(({ imports }) => imports.map(({ specifier }) => packageOf(specifier)))
        .filter((name) => name !== undefined && isOurs(name));
      const declared = { ...manifest.dependencies, ...manifest.devDependencies };
      expect([...new Set(imported)].filter((name) => !(name! in declared))).toEqual([]);
    },
  );
});
