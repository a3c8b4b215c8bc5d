// Sums up the results of several steps: prints why tests were skipped and what failed, then one line
// `N passed, N failed, N skipped`. Exits with 1 when a test or a step has failed.
//
// usage: node .ci/sum-results.mjs NAME:STATUS[:RESULTS-FILE]…
import { readFileSync } from 'node:fs';

const total = { passed: 0, failures: [], skipped: [] };
for (const step of process.argv.slice(2)) {
  const [name, status, file] = step.split(':');
  const results = file === undefined ? { passed: 0, failures: [], skipped: [] } : read(file);
  if (results === undefined) {
    total.failures.push(`${name}: ended with status ${status} before its tests had run`);
    continue;
  }
  total.passed += results.passed;
  total.skipped.push(...results.skipped);
  total.failures.push(...results.failures);
  if (status !== '0' && results.failures.length === 0) {
    total.failures.push(`${name}: ended with status ${status}`);
  }
}
for (const line of total.skipped) console.log(`skipped: ${oneLine(line)}`);
for (const line of total.failures) console.log(`failed: ${oneLine(line)}`);
const { passed, failures, skipped } = total;
console.log(`${passed} passed, ${failures.length} failed, ${skipped.length} skipped`);
process.exitCode = failures.length > 0 ? 1 : 0;

function read(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

function oneLine(text) {
  return text.replaceAll(/\s+/g, ' ').slice(0, 300);
}
