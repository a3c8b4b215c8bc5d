import { expect, test } from 'vitest';
import { CATALOGUE } from './catalogue.ts';
import { fillNames } from './match.ts';

/** The page in docs, made from the catalogue: `vitest run -u` writes it anew. */
function page(): string {
  const lines = [
    '# Why migrations fail',
    '',
    '<!-- Made from apps/wherry/src/explain: run vitest with -u there instead of editing this page. -->',
    '',
    '`wherry explain` says what a message of QEMU means, why it usually comes and what to do. The codes are',
    'stable; `wherry inspect` names them in its diagnoses.',
    '',
    '```text',
    `wherry explain "Unknown savevm section or instance 'x' 0"`,
    'wherry explain - < qemu.log       # every line of a log that is known, in its order',
    'wherry explain FOOTER_MISSING     # a code of this page',
    'wherry explain --list',
    '```',
    '',
    'Exit codes: 0 something was explained, 1 nothing was recognised, 2 wrong usage.',
    '',
    '`--json` prints one object: `version` (1) and `explained[]` with `line` (of a log, from 1 on), `text`,',
    '`code`, `what`, `why`, `action` and `names`, what the message says in the places of its names. With',
    '`--list`: `version` and `causes[]` with `code`, `area`, the texts, `messages[]` and `errors[]`, the codes',
    "of this program's own errors.",
    '',
    'In the messages below `{name}` stands for any text, `{name#}` for a number, `[…]` may be missing.',
  ];
  for (const [area, causes] of CATALOGUE) {
    lines.push('', `## ${area}`);
    for (const { code, what, why, action, messages = [], errors = [] } of causes) {
      const text = (part: string): string => fillNames(part, undefined).replaceAll('<', '&lt;');
      lines.push(
        '',
        `### ${code}`,
        '',
        `${text(what)}. ${text(why)}`,
        '',
        `**Do:** ${text(action)}`,
      );
      if (messages.length > 0) lines.push('', ...messages.map((message) => `- \`${message}\``));
      if (errors.length > 0) {
        lines.push('', `Own errors: ${errors.map((error) => `\`${error}\``).join(', ')}`);
      }
    }
  }
  return `${lines.join('\n')}\n`;
}

test('docs/causes.md is the catalogue', async () => {
  await expect(page()).toMatchFileSnapshot('../../../../docs/causes.md');
});
