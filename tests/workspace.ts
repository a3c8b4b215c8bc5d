import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The repository's root. */
export const root: string = join(import.meta.dirname, '..');

/** What a package.json says, as far as the checks need it. */
export interface Manifest {
  readonly name: string;
  readonly private?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

/** One workspace: a package, an app, the benchmarks or the conformance suite. */
export interface Workspace {
  /** `bytes`, or `benchmarks`. */
  readonly title: string;
  readonly kind: 'package' | 'app' | 'benchmarks' | 'conformance';
  readonly folder: string;
  readonly manifest: Manifest;
}

/** Lists all workspaces. */
export function listWorkspaces(): Workspace[] {
  const inside = (parent: string, kind: 'package' | 'app'): Workspace[] =>
    readdirSync(join(root, parent))
      .sort()
      .filter((title) => existsSync(join(root, parent, title, 'package.json')))
      .map((title) => load(title, kind, join(root, parent, title)));
  return [
    ...inside('packages', 'package'),
    ...inside('apps', 'app'),
    load('benchmarks', 'benchmarks', join(root, 'benchmarks')),
    load('conformance', 'conformance', join(root, 'conformance')),
  ];
}

function load(title: string, kind: Workspace['kind'], folder: string): Workspace {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
  return { title, kind, folder, manifest };
}
