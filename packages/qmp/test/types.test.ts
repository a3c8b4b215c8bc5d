import { describe, expectTypeOf, it } from 'vitest';
import {
  type MigrationAddress,
  type MigrationInfo,
  type MigrationParameters,
  type MigrationSchema,
  mergeSchemas,
  migrationSchema,
  type QapiArguments,
  type QapiInt64,
  type QapiSchema,
  type QmpClient,
  type QmpEventOf,
  type QmpHandlers,
  type QmpReply,
} from '../src/index.ts';

describe('types inferred from a schema', () => {
  it('are those of QAPI', () => {
    expectTypeOf(migrationSchema).toExtend<QapiSchema>();
    expectTypeOf<QapiArguments<MigrationSchema, 'migrate-recover'>>().toEqualTypeOf<{
      uri: string;
    }>();
    expectTypeOf<QapiArguments<MigrationSchema, 'migrate-continue'>['state']>().toEqualTypeOf<
      NonNullable<MigrationInfo['status']>
    >();
    expectTypeOf<NonNullable<MigrationInfo['ram']>['multifd-bytes']>().toEqualTypeOf<QapiInt64>();
    expectTypeOf<MigrationParameters['tls-creds']>().toEqualTypeOf<string | null | undefined>();
    expectTypeOf<MigrationParameters['multifd-channels']>().toEqualTypeOf<number | undefined>();
    expectTypeOf<{
      transport: 'file';
      filename: string;
      offset: number;
    }>().toExtend<MigrationAddress>();
    expectTypeOf<{
      transport: 'socket';
      type: 'unix';
      path: string;
    }>().toExtend<MigrationAddress>();
    expectTypeOf<{ transport: 'file'; type: 'unix' }>().not.toExtend<MigrationAddress>();
  });

  it('reach client and server', () => {
    expectTypeOf<QmpReply<MigrationSchema, 'query-migrate'>>().toEqualTypeOf<MigrationInfo>();
    expectTypeOf<QmpReply<MigrationSchema, 'x-own'>>().toEqualTypeOf<unknown>();
    expectTypeOf<QmpEventOf<MigrationSchema, 'MIGRATION_PASS'>['data']>().toEqualTypeOf<{
      pass: QapiInt64;
    }>();
    expectTypeOf<QmpHandlers<MigrationSchema>>().not.toHaveProperty('query-version');
    const call = async (client: QmpClient) => {
      await client.execute('stop');
      await client.execute('x-own', { anything: 1 });
      await client.execute('qmp_capabilities', { enable: ['oob'] });
      // @ts-expect-error the argument uri is missing
      await client.execute('migrate-recover');
      // @ts-expect-error the state is none of MigrationStatus
      await client.execute('migrate-continue', { state: 'nowhere' });
    };
    expectTypeOf(call).toBeFunction();
  });

  it('follow a merged schema', () => {
    const merged = mergeSchemas(migrationSchema, {
      types: { MigrationCapability: { enum: ['events'] } },
      commands: { 'x-own': { data: { '*depth': 'uint8' }, returns: ['str'] } },
    });
    type Merged = typeof merged;
    expectTypeOf<QapiArguments<Merged, 'x-own'>>().toEqualTypeOf<{ depth?: number | undefined }>();
    expectTypeOf<QmpReply<Merged, 'x-own'>>().toEqualTypeOf<readonly string[]>();
    expectTypeOf<
      QapiArguments<Merged, 'migrate-set-capabilities'>['capabilities'][number]['capability']
    >().toEqualTypeOf<'events'>();
  });
});
