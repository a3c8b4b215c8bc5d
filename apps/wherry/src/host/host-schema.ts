import {
  type BlockSchema,
  blockSchema,
  type MigrationSchema,
  mergeSchemas,
  migrationSchema,
  type QapiMerged,
} from '@wherry/qmp';

const ownSchema = {
  types: {
    // QEMU's, as far as a migration needs them.
    ObjectType: { enum: ['tls-creds-x509', 'tls-creds-psk'] },
    QCryptoTLSCredsEndpoint: { enum: ['client', 'server'] },
    ObjectOptions: {
      struct: {
        'qom-type': 'ObjectType',
        id: 'str',
        '*dir': 'str',
        '*endpoint': 'QCryptoTLSCredsEndpoint',
        '*verify-peer': 'bool',
        '*sanity-check': 'bool',
        '*username': 'str',
        '*priority': 'str',
        '*passwordid': 'str',
      },
    },
    WherryFaults: {
      struct: {
        count: 'int',
        'total-ms': 'number',
        'p50-ms': 'number',
        'p99-ms': 'number',
        histogram: ['WherryFaultBucket'],
      },
    },
    WherryFaultBucket: { struct: { 'from-ms': 'number', 'to-ms': 'number', count: 'int' } },
    WherryGuest: {
      struct: {
        vcpus: 'int',
        writes: 'int',
        checks: 'int',
        violations: 'int',
        'first-violations': ['str'],
        'pages-owned': 'int',
        faults: 'WherryFaults',
        'zero-pages-received': 'int',
        'normal-pages-received': 'int',
      },
    },
    WherryBlockMask: { struct: { name: 'str', dirty: 'str' } },
    WherryBlock: {
      struct: { name: 'str', pages: 'int', compared: 'int', checksum: 'str', dirty: 'str' },
    },
    WherryDevice: {
      struct: { idstr: 'str', 'instance-id': 'int', bytes: 'int', digest: 'str' },
    },
    WherryHandover: { struct: { blocks: ['WherryBlock'], devices: ['WherryDevice'] } },
  },
  commands: {
    'object-add': { data: 'ObjectOptions' },
    'object-del': { data: { id: 'str' } },
    /** What the vCPUs have seen so far. */
    'x-wherry-guest': { returns: 'WherryGuest' },
    /** Lets every vCPU check all its pages, then tells what they have seen. */
    'x-wherry-verify': { returns: 'WherryGuest' },
    /** RAM and devices at hand-over: on the destination all pages not written since, on the source those same pages. */
    'x-wherry-handover': { data: { '*blocks': ['WherryBlockMask'] }, returns: 'WherryHandover' },
  },
  events: {},
} as const;

const qemuSchema: QapiMerged<MigrationSchema, BlockSchema> = mergeSchemas(
  migrationSchema,
  blockSchema,
);
/** QEMU's commands of migration and disks, and the simulated host's own, which begin with `x-wherry-`. */
export const hostSchema: QapiMerged<typeof qemuSchema, typeof ownSchema> = mergeSchemas(
  qemuSchema,
  ownSchema,
);
export type HostSchema = typeof hostSchema;
