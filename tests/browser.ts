import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome', 'chrome'];

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--no-proxy-server',
];

/** How one module did in the browser. */
export interface BrowserResult {
  readonly name: string;
  /** What it logged, one entry a call. */
  readonly logged: readonly string[];
  /** The error that it threw, with its stack. */
  readonly error?: string;
}

/** Finds Chromium by CHROME_PATH or in PATH. */
export function findChromium(): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  const candidates = NAMES.flatMap((name) => folders.map((folder) => join(folder, name)));
  return [process.env['CHROME_PATH'] ?? '', ...candidates].find(isExecutable);
}

/** Code that the page can load by its name. */
export interface BrowserModule {
  readonly name: string;
  readonly code: string;
  /** Whether it is there for others to load, such as the code of a worker. */
  readonly isWorker?: boolean;
}

/**
 * Runs ES modules one after the other in one page of a headless Chromium, isolated across origins so
 * that shared memory is allowed.
 */
export async function runInBrowser(
  chromium: string,
  modules: readonly BrowserModule[],
  timeoutMs: number,
): Promise<BrowserResult[]> {
  const profile = mkdtempSync(join(tmpdir(), 'wherry-chromium-'));
  let report: (results: BrowserResult[]) => void = () => {};
  const reported = new Promise<BrowserResult[]>((resolve) => {
    report = resolve;
  });
  const server = createServer((request, response) => {
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    const name = decodeURIComponent((request.url ?? '/').slice(1));
    if (request.method === 'POST') {
      let body = '';
      request.setEncoding('utf8');
      request.on('data', (text: string) => {
        body += text;
      });
      request.on('end', () => {
        response.end();
        report(JSON.parse(body) as BrowserResult[]);
      });
    } else if (name === '') {
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end(page(modules.filter((each) => !each.isWorker).map((each) => each.name)));
    } else {
      const code = modules.find((each) => each.name === name)?.code;
      response.statusCode = code === undefined ? 404 : 200;
      response.setHeader('Content-Type', 'text/javascript; charset=utf-8');
      response.end(code ?? '');
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}/`;
  const child = spawn(chromium, [...FLAGS, `--user-data-dir=${profile}`, url], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, TMPDIR: profile }, // what it leaves there goes with the profile
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  let hasExited = false;
  const exited = new Promise<void>((resolve) => {
    const done = (): void => {
      hasExited = true;
      resolve();
    };
    child.once('exit', done);
    child.once('error', done);
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      reported,
      exited.then((): never => {
        throw new Error(`Chromium ended before the page had reported: ${said}`);
      }),
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          reject(new Error(`The page did not report within ${timeoutMs} ms: ${said}`));
        }, timeoutMs);
      }),
    ]);
  } finally {
    clearTimeout(timer);
    if (!hasExited) child.kill('SIGTERM');
    const killing = setTimeout(() => child.kill('SIGKILL'), 5000);
    await exited;
    clearTimeout(killing);
    server.closeAllConnections();
    server.close();
    // Helper processes may write their last file while the folder goes.
    rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

function page(names: readonly string[]): string {
  return `<!doctype html><meta charset="utf-8"><title>Packages</title><script type="module">
const results = [];
for (const name of ${JSON.stringify(names).replaceAll('<', '\\u003c')}) {
  const result = { name, logged: [] };
  console.log = (...values) => void result.logged.push(values.map(String).join(' '));
  try {
    await import('/' + encodeURIComponent(name));
  } catch (error) {
    result.error = error instanceof Error ? error.message + '\\n' + error.stack : String(error);
  }
  results.push(result);
}
await fetch('/', { method: 'POST', body: JSON.stringify(results) });
</script>`;
}

function isExecutable(path: string): boolean {
  if (path === '') return false;
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
