/** One connection's input, sent after the greeting, and after negotiation unless it is raw. */
export interface TranscriptCase {
  readonly name: string;
  /** Text, one character a byte (latin-1). */
  readonly input: string;
  readonly isRaw?: true;
  /** What releases from 10.0 on reply instead, and why: this server does as they do. */
  readonly newer?: { readonly desc: string; readonly note: string };
}

const run = (command: string, args?: unknown): string =>
  JSON.stringify({ execute: command, arguments: args, id: 1 });

const capabilities = (value: unknown): string =>
  run('migrate-set-capabilities', { capabilities: value });

export const transcriptCases: readonly TranscriptCase[] = [
  // Lexer
  { name: 'stray letter case', input: 'Hello' },
  { name: 'stray control character', input: '\u0001' },
  { name: 'stray NUL', input: '\u0000' },
  { name: 'byte FF', input: '\u00ff' },
  { name: 'byte FF inside an open object', input: '{"execute": \u00ff' },
  { name: 'byte FE between messages', input: `${run('query-version-x')}\u00fe` },
  { name: 'newline in a string', input: '{"execute": "a\nb"}' },
  { name: 'tab in a string', input: '"a\tb"' },
  { name: 'recovery goes on at the next brace', input: '@@@ {"execute": "nope", "id": 4}' },
  { name: 'recovery stops at a comma', input: '@@@, 1' },
  { name: 'leading zero', input: '01 ' },
  { name: 'minus alone', input: '- ' },
  { name: 'point without digits', input: '1. ' },
  { name: 'exponent without digits', input: '1e ' },
  { name: 'zero with an exponent', input: '[0e1]' },
  { name: 'plus sign', input: '[+1]' },
  { name: 'percent sign', input: '[%d]' },
  { name: 'upper-case keyword', input: '[True]' },
  // Parser
  { name: 'number', input: '1 ' },
  { name: 'string', input: '"x"' },
  { name: 'single-quoted string', input: "'x'" },
  { name: 'array', input: '[]' },
  { name: 'null', input: 'null ' },
  { name: 'unknown keyword', input: 'nil ' },
  { name: 'closing brace', input: '}' },
  { name: 'closing bracket', input: ']' },
  { name: 'comma', input: ',' },
  { name: 'colon', input: ':' },
  { name: 'brace closed by bracket', input: '{]}' },
  { name: 'trailing comma in object', input: '{"execute": "x",}' },
  { name: 'trailing comma in array', input: '[1,]' },
  { name: 'no colon', input: '{"execute" "x"}' },
  { name: 'no value', input: '{"execute":}' },
  { name: 'no separator in object', input: '{"a": 1 "b": 2}' },
  { name: 'no separator in array', input: '[1 2]' },
  { name: 'number as key', input: '{1: 2}' },
  { name: 'duplicate key', input: '{"execute": "a", "execute": "b"}' },
  { name: 'invalid escape', input: '"\\q"' },
  { name: 'invalid hex', input: '"\\u12"' },
  { name: 'lone surrogate', input: '"\\ud800"' },
  { name: 'lead surrogate without its trail', input: '"\\ud800\\u0041"' },
  { name: 'noncharacter escape', input: '"\\uffff"' },
  { name: 'invalid UTF-8', input: '"\u00c3("' },
  { name: 'overlong UTF-8', input: '"\u00c1\u0081"' },
  { name: 'invalid UTF-8 before an invalid escape', input: '"\u0080\\q"' },
  { name: 'nested 1024 deep', input: '['.repeat(1024) + ']'.repeat(1024) },
  { name: 'nested 1025 deep', input: `${'['.repeat(1025)}\u00ff` },
  // Requests
  {
    name: 'two messages back to back',
    input: '{"execute":"nope","id":1}{"execute":"nope","id":2}',
  },
  { name: 'empty object', input: '{}' },
  { name: 'no execute, with an id', input: '{"id": "x"}' },
  { name: 'execute is a number', input: '{"execute": 1, "id": 1}' },
  { name: 'unknown member', input: '{"execute": "query-status", "argumens": {}, "id": 1}' },
  { name: 'arguments is an array', input: '{"execute": "query-status", "arguments": [], "id": 1}' },
  { name: 'arguments is null', input: '{"execute": "query-status", "arguments": null, "id": 1}' },
  { name: 'unknown command', input: '{"execute": "nope", "id": [1, {"a": null}]}' },
  { name: 'empty command', input: '{"execute": "", "id": 1}' },
  { name: 'exec-oob without the capability', input: '{"exec-oob": "query-status", "id": 1}' },
  { name: 'id of 64 bits', input: '{"execute": "nope", "id": 18446744073709551615}' },
  { name: 'id below -2^53', input: '{"execute": "nope", "id": -9223372036854775808}' },
  {
    name: 'id with all escapes',
    input: '{"execute": "nope", "id": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u20ac"}',
  },
  {
    name: 'id in UTF-8 beyond the BMP',
    input: '{"execute": "nope", "id": "\u00f0\u009f\u0098\u0080"}',
  },
  { name: 'U+0000 as C0 80', input: '{"execute": "nope", "id": "a\u00c0\u0080b"}' },
  { name: 'id is a whole float', input: '{"execute": "nope", "id": 1.0}' },
  { name: 'id is false', input: '{"execute": "nope", "id": false}' },
  // Negotiation
  { name: 'command before negotiation', isRaw: true, input: run('query-version') },
  { name: 'bad shape before negotiation', isRaw: true, input: '{"execute": "nope", "x": 1}' },
  {
    name: 'negotiation with a wrong type',
    isRaw: true,
    input: run('qmp_capabilities', { enable: 1 }),
  },
  {
    name: 'negotiation of an unknown capability',
    isRaw: true,
    input: run('qmp_capabilities', { enable: ['foo'] }),
  },
  { name: 'negotiation', isRaw: true, input: run('qmp_capabilities') },
  { name: 'negotiation of oob', isRaw: true, input: run('qmp_capabilities', { enable: ['oob'] }) },
  { name: 'second negotiation', input: run('qmp_capabilities') },
  {
    name: 'oob of a command that does not support it',
    isRaw: true,
    input: `${run('qmp_capabilities', { enable: ['oob'] })}{"exec-oob": "query-version", "id": 2}`,
  },
  {
    name: 'oob and execute at once',
    isRaw: true,
    input: `${run('qmp_capabilities', { enable: ['oob'] })}{"execute": "a", "exec-oob": "b"}`,
  },
  {
    name: 'oob of an unknown command',
    isRaw: true,
    input: `${run('qmp_capabilities', { enable: ['oob'] })}{"exec-oob": "nope", "id": 2}`,
  },
  // Schema
  { name: 'argument to a command without', input: run('stop', { now: true }) },
  { name: 'missing member', input: run('migrate-set-capabilities', {}) },
  { name: 'list expected', input: capabilities({}) },
  { name: 'object expected in a list', input: capabilities(['x']) },
  { name: 'missing member in a list', input: capabilities([{ capability: 'xbzrle' }]) },
  { name: 'boolean expected', input: capabilities([{ capability: 'xbzrle', state: 1 }]) },
  { name: 'unknown enum value', input: capabilities([{ capability: 'foo', state: true }]) },
  { name: 'number for an enum', input: capabilities([{ capability: 1, state: true }]) },
  {
    name: 'unknown member in a list',
    input: capabilities([{ capability: 'xbzrle', state: true, x: 1 }]),
  },
  { name: 'good capabilities', input: capabilities([{ capability: 'events', state: true }]) },
  { name: 'empty list', input: capabilities([]) },
  { name: 'string expected', input: run('migrate', { uri: 1 }) },
  { name: 'null for a string', input: run('migrate', { uri: null }) },
  {
    name: 'unknown member beside a good one',
    input: run('migrate', { uri: 'exec:false', foo: 1 }),
  },
  {
    name: 'no arguments to migrate-recover',
    input: run('migrate-recover'),
  },
  { name: 'state expected', input: run('migrate-continue', { state: 'nowhere' }) },
  { name: 'size: string', input: run('migrate-set-parameters', { 'max-bandwidth': '1M' }) },
  {
    name: 'size: float',
    input: '{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1.5}}',
  },
  {
    name: 'size: whole float',
    input: '{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1.0}}',
  },
  {
    name: 'size: more than 64 bits',
    input:
      '{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 18446744073709551616}}',
  },
  { name: 'size: boolean', input: run('migrate-set-parameters', { 'max-bandwidth': true }) },
  { name: 'uint8: string', input: run('migrate-set-parameters', { 'multifd-channels': 'x' }) },
  { name: 'uint8: 256', input: run('migrate-set-parameters', { 'multifd-channels': 256 }) },
  { name: 'uint8: -1', input: run('migrate-set-parameters', { 'multifd-channels': -1 }) },
  {
    name: 'uint32: 2^32',
    input: run('migrate-set-parameters', { 'x-checkpoint-delay': 2 ** 32 }),
  },
  {
    name: 'boolean: string',
    input: run('migrate-set-parameters', { 'cpu-throttle-tailslow': 'on' }),
  },
  { name: 'enum: unknown', input: run('migrate-set-parameters', { 'multifd-compression': 'lz4' }) },
  { name: 'string or null: number', input: run('migrate-set-parameters', { 'tls-creds': 1 }) },
  { name: 'string or null: null', input: run('migrate-set-parameters', { 'tls-creds': null }) },
  { name: 'unknown parameter', input: run('migrate-set-parameters', { speed: 1 }) },
  {
    name: 'nested list of structs',
    input: run('migrate-set-parameters', {
      'block-bitmap-mapping': [
        { 'node-name': 'a', alias: 'b', bitmaps: [{ name: 1, alias: 'x' }] },
      ],
    }),
  },
  {
    name: 'nested unknown member',
    input: run('migrate-set-parameters', {
      'block-bitmap-mapping': [
        { 'node-name': 'a', alias: 'b', bitmaps: [{ name: 'n', alias: 'x', transform: { y: 1 } }] },
      ],
    }),
  },
  { name: 'good parameters', input: run('migrate-set-parameters', { 'downtime-limit': 500 }) },
  {
    name: 'migrate without uri',
    input: run('migrate', {}),
    newer: {
      desc: "need either 'uri' or 'channels' argument",
      note: 'optional since 8.2, when channels came; the handler refuses',
    },
  },
  {
    name: 'parameter dropped in 9.1',
    input: run('migrate-set-parameters', { 'block-incremental': true }),
    newer: {
      desc: "Parameter 'block-incremental' is unexpected",
      note: 'block migration was removed in 9.1',
    },
  },
  { name: 'no parameters', input: run('migrate-set-parameters') },
];
