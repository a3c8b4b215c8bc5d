import { globSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join } from 'node:path';

/** One import, re-export or dynamic import. */
export interface Import {
  readonly specifier: string;
  /** Whether it is an `import type` or `export type`, of which nothing is left at run time. */
  readonly isTypeOnly: boolean;
}

/** A source file and what it takes from elsewhere. */
export interface SourceFile {
  /** Path relative to the folder that was listed. */
  readonly path: string;
  readonly imports: readonly Import[];
  /** Whether it names Node's global `Buffer`. */
  readonly usesBuffer: boolean;
}

const STATEMENT =
  /^[ \t]*(?:import|export)\b(?<type>\s+type\b(?!\s*,|\s+from\b))?(?:[^'";]*?\bfrom)?\s*(?<quote>['"])(?<static>[^'"\n]+)\k<quote>/gm;
const DYNAMIC = /\bimport\s*\(\s*(?<quote>['"])(?<dynamic>[^'"\n]+)\k<quote>/g;

/** Finds the imports in TypeScript text. */
export function findImports(text: string): Import[] {
  const code = withoutComments(text);
  return [
    ...[...code.matchAll(STATEMENT)].map(({ groups }) => ({
      specifier: groups?.['static'] ?? '',
      isTypeOnly: groups?.['type'] !== undefined,
    })),
    ...[...code.matchAll(DYNAMIC)].map(({ groups }) => ({
      specifier: groups?.['dynamic'] ?? '',
      isTypeOnly: false,
    })),
  ];
}

/** Reads all TypeScript files below a folder, without tests. */
export function readSources(folder: string): SourceFile[] {
  return globSync('**/*.ts', { cwd: folder })
    .filter((path) => !path.endsWith('.test.ts') && !/(^|\/)(node_modules|dist)\//.test(path))
    .sort()
    .map((path) => {
      const text = readFileSync(join(folder, path), 'utf8');
      const usesBuffer = /(?<![.\w$'"`])Buffer\b(?!['"`])/.test(withoutComments(text));
      return { path, imports: findImports(text), usesBuffer };
    });
}

/** Says which package a specifier names: `@scope/name`, `name`; undefined for a file and for Node's own. */
export function packageOf(specifier: string): string | undefined {
  if (specifier.startsWith('.') || isNodeModule(specifier)) return undefined;
  const parts = specifier.split('/');
  return parts.slice(0, specifier.startsWith('@') ? 2 : 1).join('/');
}

/** Whether a specifier names one of Node's own modules. */
export function isNodeModule(specifier: string): boolean {
  return specifier.startsWith('node:') || builtinModules.includes(specifier);
}

function withoutComments(text: string): string {
  // Strings are matched first, so that a `//` in one of them is no comment.
  return text.replace(
    /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (part) => (part.startsWith('/') ? ' ' : part),
  );
}
