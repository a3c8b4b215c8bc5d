// A vitest reporter that writes what .ci/sum-results.mjs sums up, with the reasons of skipped tests,
// to the file named by WHERRY_TEST_RESULTS.
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';

export default class ResultsReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const results = { passed: 0, failures: [], skipped: [] };
    for (const error of unhandledErrors) results.failures.push(`unhandled: ${error.message}`);
    for (const module of modules) {
      const file = relative(process.cwd(), module.moduleId);
      for (const { message } of module.errors()) results.failures.push(`${file}: ${message}`);
      for (const suite of module.children.allSuites()) {
        for (const { message } of suite.errors()) {
          results.failures.push(`${file} > ${suite.fullName}: ${message}`);
        }
      }
      for (const test of module.children.allTests()) {
        const { state, note } = test.result();
        const name = `${file} > ${test.fullName}`;
        if (state === 'passed') results.passed++;
        else if (state === 'skipped') results.skipped.push(note ? `${name}: ${note}` : name);
        else results.failures.push(name);
      }
    }
    writeFileSync(process.env.WHERRY_TEST_RESULTS, JSON.stringify(results));
  }
}
