import { describe, expect, it } from 'vitest';
import { JsonDouble } from './json-value.ts';
import { migrationSchema } from './migration-schema.ts';
import { mergeSchemas, type QapiSchema } from './schema.ts';
import { SchemaChecker } from './schema-check.ts';

const checker = new SchemaChecker({
  types: {
    Color: { enum: ['red'] },
    Box: { struct: { width: 'int', '*lid': 'bool' } },
    Text: { alternate: ['str', 'null'] },
  },
});

function check(type: string | readonly [string], value: unknown): unknown {
  return checker.value(type, value, 'x');
}

describe('SchemaChecker', () => {
  it.each([
    ['int8', 128, "Parameter 'x' expects int8_t"],
    ['int16', -32769, "Parameter 'x' expects int16_t"],
    ['int32', 2 ** 31, "Parameter 'x' expects int32_t"],
    ['int', 2n ** 63n, "Invalid parameter type for 'x', expected: integer"],
    ['int', new JsonDouble(1), "Invalid parameter type for 'x', expected: integer"],
    ['int', '1', "Invalid parameter type for 'x', expected: integer"],
    ['uint16', 65536, "Parameter 'x' expects uint16_t"],
    ['uint64', 0.5, "Parameter 'x' expects uint64"],
    ['number', '1', "Invalid parameter type for 'x', expected: number"],
    ['null', 0, "Invalid parameter type for 'x', expected: null"],
    ['Box', [], "Invalid parameter type for 'x', expected: object"],
    ['Box', { width: 1, lid: null }, "Invalid parameter type for 'x.lid', expected: boolean"],
    ['Box', { width: 1, toString: 1 }, "Parameter 'x.toString' is unexpected"],
    ['Text', 1, "Invalid parameter type for 'x', expected: Text"],
    [['Color'], ['blue'], "Parameter 'null' does not accept value 'blue'"],
    [['uint8'], [1, 256], "Parameter 'null' expects uint8_t"],
    [['Box'], [{ width: 1 }, {}], "Parameter 'x[1].width' is missing"],
  ] as const)('refuses %o with %o', (type, value, desc) => {
    expect(() => check(type, value)).toThrow(
      expect.objectContaining({ code: 'COMMAND_FAILED', qmpClass: 'GenericError', desc }),
    );
  });

  it.each([
    ['int8', -128, -128],
    ['int', -(2n ** 63n), -(2n ** 63n)],
    ['uint64', 2n ** 64n - 1n, 2n ** 64n - 1n],
    ['size', -1, 2n ** 64n - 1n],
    ['number', 2n ** 60n, 2 ** 60],
    ['number', new JsonDouble(3), 3],
    ['any', { a: [new JsonDouble(3)] }, { a: [3] }],
    ['Text', null, null],
    ['Box', { width: 5, lid: false }, { width: 5, lid: false }],
    [['Color'], ['red'], ['red']],
  ] as const)('takes %o %o', (type, value, expected) => {
    expect(check(type, value)).toEqual(expected);
  });

  it('takes a union in a union, its members side by side', () => {
    const migration = new SchemaChecker(migrationSchema);
    const command = migrationSchema.commands.migrate;
    const addr = { transport: 'socket', type: 'inet', host: 'h', port: '1' };
    const channels = [{ 'channel-type': 'main', addr }];
    expect(migration.arguments(command, { channels })).toEqual({ channels });
    const wrong = [{ 'channel-type': 'main', addr: { ...addr, path: 'p' } }];
    expect(() => migration.arguments(command, { channels: wrong })).toThrow(
      "Parameter 'channels[0].addr.path' is unexpected",
    );
    const none = [{ 'channel-type': 'main', addr: { transport: 'socket', type: 'tcp' } }];
    expect(() => migration.arguments(command, { channels: none })).toThrow(
      "Parameter 'type' does not accept value 'tcp'",
    );
  });

  it('refuses a schema with an undefined type', () => {
    const schema: QapiSchema = { commands: { run: { data: { speed: 'Speed' } } } };
    expect(() => new SchemaChecker(schema)).toThrow(
      expect.objectContaining({ code: 'SCHEMA', found: 'Speed' }),
    );
  });

  it('narrows an enum by merging', () => {
    const narrow = mergeSchemas(migrationSchema, {
      types: { MigrationCapability: { enum: ['events'] } },
    });
    const command = narrow.commands['migrate-set-capabilities'];
    const capabilities = [{ capability: 'block', state: true }];
    expect(() => new SchemaChecker(narrow).arguments(command, { capabilities })).toThrow(
      "Parameter 'capability' does not accept value 'block'",
    );
  });
});
