import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { JsonStream, migrationSchema, QmpCommandError, QmpServer } from '../src/index.ts';
import { connectTo } from './byte-channel.ts';
import { replay } from './replay.ts';

interface Recorded {
  readonly name: string;
  readonly input: string;
  readonly isRaw?: boolean;
  readonly replies: readonly Record<string, unknown>[];
  readonly newer?: { readonly desc: string };
}

function readFixture(): { readonly cases: readonly Recorded[] } {
  const stream = new JsonStream(); // JSON.parse would round the integers of 64 bits
  stream.push(readFileSync(new URL('fixtures/transcripts.json', import.meta.url)));
  const item = stream.next();
  if (item?.kind !== 'value') throw new Error('the fixture is no JSON');
  return item.value as { cases: Recorded[] };
}

function startServer(): QmpServer<typeof migrationSchema> {
  return new QmpServer({
    schema: migrationSchema,
    version: { qemu: { major: 11, minor: 1, micro: 0 }, package: '' },
    capabilities: ['oob'],
    commands: {
      migrate: ({ uri, channels }) => {
        if (uri === undefined && channels === undefined) {
          throw new QmpCommandError('GenericError', "need either 'uri' or 'channels' argument");
        }
      },
      'migrate-continue': () => {},
      'migrate-recover': () => {},
      'migrate-set-capabilities': () => {},
      'migrate-set-parameters': () => {},
      'query-status': () => ({ running: false, status: 'prelaunch' }),
      stop: () => {},
    },
  });
}

describe('replies to input that QEMU 7.2 was given', () => {
  const cases = readFixture().cases.map((recorded) => [recorded.name, recorded] as const);

  it.each(cases)('%s', async (_name, { input, isRaw, replies, newer }) => {
    const actual = await replay(connectTo(startServer()), input, isRaw === true);
    const error = { class: 'GenericError', desc: newer?.desc };
    expect(actual).toEqual(newer === undefined ? replies : [{ error, id: 1 }]);
  });

  it('keeps every digit of an id of 64 bits', () => {
    const ids = cases.flatMap(([, { replies }]) => replies.map((reply) => reply['id']));
    expect(ids).toContain(18446744073709551615n);
    expect(ids).toContain(-9223372036854775808n);
  });
});
