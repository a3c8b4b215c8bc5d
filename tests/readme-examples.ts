import { globSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { findImports, isNodeModule } from './imports.ts';
import { listWorkspaces, root } from './workspace.ts';

/** One ```ts block of a document. */
export interface Example {
  /** `packages/bytes/README.md:6`. */
  readonly title: string;
  /** The package whose README it stands in; undefined in the root README and in `docs`. */
  readonly packageName: string | undefined;
  readonly code: string;
  /** Whether it imports modules of Node. */
  readonly needsNode: boolean;
}

/** Finds the ```ts blocks of every README and of all pages in `docs`. */
export function findExamples(): Example[] {
  const inPackages = listWorkspaces()
    .filter(({ kind }) => kind === 'package' || kind === 'app')
    .flatMap(({ folder, manifest }) => examplesOf(join(folder, 'README.md'), manifest.name));
  const inDocs = ['README.md', ...globSync('docs/**/*.md', { cwd: root }).sort()].flatMap((path) =>
    examplesOf(join(root, path), undefined),
  );
  return [...inPackages, ...inDocs];
}

function examplesOf(path: string, packageName: string | undefined): Example[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => {
    const code = match[1] ?? '';
    const line = text.slice(0, match.index).split('\n').length;
    return {
      title: `${relative(root, path)}:${line}`,
      packageName,
      code,
      needsNode: findImports(code).some(({ specifier }) => isNodeModule(specifier)),
    };
  });
}
