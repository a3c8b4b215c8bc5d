import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { root, type Workspace } from './workspace.ts';

const run = promisify(execFile);

/** An empty project outside the repository with our packages installed from their tarballs. */
export interface PackedProject {
  readonly folder: string;
  /** Runs an ES module or a TypeScript file of the project in Node. */
  runNode(file: string): Promise<{ stdout: string; stderr: string }>;
  remove(): void;
}

/**
 * Packs the given workspaces as `npm publish` would and unpacks them as `npm install` would. Nothing
 * comes from a registry: dependencies of others are linked from the repository's own installation.
 */
export async function installPacked(workspaces: readonly Workspace[]): Promise<PackedProject> {
  const folder = mkdtempSync(join(tmpdir(), 'wherry-packed-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    const modules = join(folder, 'node_modules');
    mkdirSync(modules);
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
    const names = workspaces.flatMap(({ manifest }) => ['--workspace', manifest.name]);
    const options = ['--json', '--ignore-scripts', '--pack-destination', folder];
    const { stdout } = await run('npm', ['pack', ...options, ...names], { cwd: root });
    for (const { name, filename } of listPacked(stdout)) {
      const target = join(modules, name);
      mkdirSync(target, { recursive: true });
      const tarball = join(folder, filename);
      await run('tar', ['-xzf', tarball, '-C', target, '--strip-components=1']);
      rmSync(tarball);
    }
    for (const workspace of workspaces) linkForeignDependencies(workspace, modules);
  } catch (error) {
    remove();
    throw error;
  }
  return {
    folder,
    remove,
    runNode: (file) =>
      run(process.execPath, [file], { cwd: folder, timeout: 60_000, env: cleanEnvironment() }),
  };
}

/** `npm pack --json` gives a list, or since npm 11 an object by name when workspaces are packed. */
function listPacked(json: string): { name: string; filename: string }[] {
  const packed = JSON.parse(json) as Record<string, { name: string; filename: string }>;
  return Object.values(packed);
}

function linkForeignDependencies({ folder, manifest }: Workspace, modules: string): void {
  for (const name of Object.keys(manifest.dependencies ?? {})) {
    const target = join(modules, name);
    if (existsSync(target)) continue;
    const source = [folder, root]
      .map((each) => join(each, 'node_modules', name))
      .find((path) => existsSync(path));
    if (source === undefined) throw new Error(`${manifest.name}: ${name} is not installed`);
    mkdirSync(dirname(target), { recursive: true });
    symlinkSync(source, target);
  }
}

/** Test runners hand options down to child processes that a user's shell would not have. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, VITEST: __, NODE_ENV: ___, ...rest } = process.env;
  return rest;
}
