import { expect, test } from 'vitest';
import { parseDeb822, parseSourcesList } from '../peers/debian-mirror.ts';

test('one-line entries: options, comments and source packages', () => {
  const text = `
# deb http://commented.invalid/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] http://mirror.invalid/debian bookworm main contrib
deb-src http://source.invalid/debian bookworm main
deb https://other.invalid/debian/ sid main # why
`;
  expect(parseSourcesList(text)).toEqual([
    { uri: 'http://mirror.invalid/debian', suites: ['bookworm'] },
    { uri: 'https://other.invalid/debian/', suites: ['sid'] },
  ]);
});

test('deb822 stanzas: several values, folded lines, comments, disabled ones', () => {
  const text = `Types: deb deb-src
# a comment in between
URIs: http://mirror.invalid/debian
 http://second.invalid/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
Enabled: no
URIs: http://disabled.invalid/debian
Suites: bookworm

Types: deb-src
URIs: http://source.invalid/debian
Suites: bookworm
`;
  const suites = ['bookworm', 'bookworm-updates'];
  expect(parseDeb822(text)).toEqual([
    { uri: 'http://mirror.invalid/debian', suites },
    { uri: 'http://second.invalid/debian', suites },
  ]);
});
