import type { QapiValue } from './schema.ts';

/**
 * Defines the commands and events of live migration and run state, with the names of every release
 * from 5.2 to 11.1. A server merges narrower enums over it for what it does not support.
 *
 * Units: times in milliseconds, `*-blocktime` too, `postcopy-latency*` in nanoseconds, bandwidths
 * in bytes per second, `mbps` in megabits per second.
 *
 * @see QEMU qapi/migration.json, qapi/run-state.json, qapi/sockets.json
 */
export const migrationSchema = {
  types: {
    MigrationStatus: {
      enum: [
        'none',
        'setup',
        'cancelling',
        'cancelled',
        'active',
        'postcopy-device',
        'postcopy-active',
        'postcopy-paused',
        'postcopy-recover-setup',
        'postcopy-recover',
        'completed',
        'failing',
        'failed',
        'colo',
        'pre-switchover',
        'device',
        'wait-unplug',
      ],
    },
    MigrationStats: {
      struct: {
        transferred: 'int',
        remaining: 'int',
        total: 'int',
        duplicate: 'int',
        normal: 'int',
        'normal-bytes': 'int',
        'dirty-pages-rate': 'int',
        mbps: 'number',
        'dirty-sync-count': 'int',
        'postcopy-requests': 'int',
        'page-size': 'int',
        'multifd-bytes': 'uint64',
        'pages-per-second': 'uint64',
        'precopy-bytes': 'uint64',
        'downtime-bytes': 'uint64',
        'postcopy-bytes': 'uint64',
        'dirty-sync-missed-zero-copy': 'uint64',
      },
    },
    XBZRLECacheStats: {
      struct: {
        'cache-size': 'size',
        bytes: 'int',
        pages: 'int',
        'cache-miss': 'int',
        'cache-miss-rate': 'number',
        'encoding-rate': 'number',
        overflow: 'int',
      },
    },
    VfioStats: { struct: { transferred: 'int' } },
    MigrationInfo: {
      struct: {
        '*status': 'MigrationStatus',
        '*ram': 'MigrationStats',
        '*vfio': 'VfioStats',
        '*xbzrle-cache': 'XBZRLECacheStats',
        '*remaining': 'int',
        '*total-time': 'int',
        '*expected-downtime': 'int',
        '*downtime': 'int',
        '*setup-time': 'int',
        '*cpu-throttle-percentage': 'int',
        '*error-desc': 'str',
        '*blocked-reasons': ['str'],
        '*postcopy-blocktime': 'uint32',
        '*postcopy-vcpu-blocktime': ['uint32'],
        '*postcopy-latency': 'uint64',
        '*postcopy-latency-dist': ['uint64'],
        '*postcopy-vcpu-latency': ['uint64'],
        '*postcopy-non-vcpu-latency': 'uint64',
        '*socket-address': ['SocketAddress'],
        '*dirty-limit-throttle-time-per-round': 'uint64',
        '*dirty-limit-ring-full-time': 'uint64',
      },
    },
    MigrationCapability: {
      enum: [
        'xbzrle',
        'rdma-pin-all',
        'auto-converge',
        'zero-blocks',
        'compress',
        'events',
        'postcopy-ram',
        'x-colo',
        'release-ram',
        'block',
        'return-path',
        'pause-before-switchover',
        'multifd',
        'dirty-bitmaps',
        'postcopy-blocktime',
        'late-block-activate',
        'x-ignore-shared',
        'validate-uuid',
        'background-snapshot',
        'zero-copy-send',
        'postcopy-preempt',
        'switchover-ack',
        'dirty-limit',
        'mapped-ram',
      ],
    },
    MigrationCapabilityStatus: { struct: { capability: 'MigrationCapability', state: 'bool' } },
    MultiFDCompression: { enum: ['none', 'zlib', 'zstd', 'qatzip', 'qpl', 'uadk'] },
    MigMode: { enum: ['normal', 'cpr-reboot', 'cpr-transfer', 'cpr-exec'] },
    ZeroPageDetection: { enum: ['none', 'legacy', 'multifd'] },
    BitmapMigrationBitmapAliasTransform: { struct: { '*persistent': 'bool' } },
    BitmapMigrationBitmapAlias: {
      struct: { name: 'str', alias: 'str', '*transform': 'BitmapMigrationBitmapAliasTransform' },
    },
    BitmapMigrationNodeAlias: {
      struct: { 'node-name': 'str', alias: 'str', bitmaps: ['BitmapMigrationBitmapAlias'] },
    },
    StrOrNull: { alternate: ['str', 'null'] },
    MigrationParameters: {
      struct: {
        '*announce-initial': 'size',
        '*announce-max': 'size',
        '*announce-rounds': 'size',
        '*announce-step': 'size',
        '*throttle-trigger-threshold': 'uint8',
        '*cpu-throttle-initial': 'uint8',
        '*cpu-throttle-increment': 'uint8',
        '*cpu-throttle-tailslow': 'bool',
        '*tls-creds': 'StrOrNull',
        '*tls-hostname': 'StrOrNull',
        '*tls-authz': 'StrOrNull',
        '*max-bandwidth': 'size',
        '*avail-switchover-bandwidth': 'size',
        '*downtime-limit': 'uint64',
        '*x-checkpoint-delay': 'uint32',
        '*multifd-channels': 'uint8',
        '*xbzrle-cache-size': 'size',
        '*max-postcopy-bandwidth': 'size',
        '*max-cpu-throttle': 'uint8',
        '*multifd-compression': 'MultiFDCompression',
        '*multifd-zlib-level': 'uint8',
        '*multifd-qatzip-level': 'uint8',
        '*multifd-zstd-level': 'uint8',
        '*block-bitmap-mapping': ['BitmapMigrationNodeAlias'],
        '*x-vcpu-dirty-limit-period': 'uint64',
        '*vcpu-dirty-limit': 'uint64',
        '*mode': 'MigMode',
        '*zero-page-detection': 'ZeroPageDetection',
        '*direct-io': 'bool',
        '*x-rdma-chunk-size': 'uint64',
        '*cpr-exec-command': ['str'],
      },
    },
    SocketAddressType: { enum: ['inet', 'unix', 'vsock', 'fd'] },
    InetSocketAddress: {
      struct: {
        host: 'str',
        port: 'str',
        '*numeric': 'bool',
        '*to': 'uint16',
        '*ipv4': 'bool',
        '*ipv6': 'bool',
        '*keep-alive': 'bool',
        '*keep-alive-count': 'uint32',
        '*keep-alive-idle': 'uint32',
        '*keep-alive-interval': 'uint32',
        '*mptcp': 'bool',
      },
    },
    UnixSocketAddress: { struct: { path: 'str', '*abstract': 'bool', '*tight': 'bool' } },
    VsockSocketAddress: { struct: { cid: 'str', port: 'str' } },
    FdSocketAddress: { struct: { str: 'str' } },
    SocketAddress: {
      discriminator: 'type',
      by: 'SocketAddressType',
      union: {
        inet: 'InetSocketAddress',
        unix: 'UnixSocketAddress',
        vsock: 'VsockSocketAddress',
        fd: 'FdSocketAddress',
      },
    },
    MigrationAddressType: { enum: ['socket', 'exec', 'rdma', 'file'] },
    FileMigrationArgs: { struct: { filename: 'str', offset: 'uint64' } },
    MigrationExecCommand: { struct: { args: ['str'] } },
    MigrationAddress: {
      discriminator: 'transport',
      by: 'MigrationAddressType',
      union: {
        socket: 'SocketAddress',
        exec: 'MigrationExecCommand',
        rdma: 'InetSocketAddress',
        file: 'FileMigrationArgs',
      },
    },
    MigrationChannelType: { enum: ['main', 'cpr'] },
    MigrationChannel: {
      struct: { 'channel-type': 'MigrationChannelType', addr: 'MigrationAddress' },
    },
    RunState: {
      enum: [
        'debug',
        'inmigrate',
        'internal-error',
        'io-error',
        'paused',
        'postmigrate',
        'prelaunch',
        'finish-migrate',
        'restore-vm',
        'running',
        'save-vm',
        'shutdown',
        'suspended',
        'watchdog',
        'guest-panicked',
        'colo',
      ],
    },
    StatusInfo: { struct: { running: 'bool', status: 'RunState' } },
    ShutdownCause: {
      enum: [
        'none',
        'host-error',
        'host-qmp-quit',
        'host-qmp-system-reset',
        'host-signal',
        'host-ui',
        'guest-shutdown',
        'guest-reset',
        'guest-panic',
        'subsystem-reset',
        'snapshot-load',
      ],
    },
  },
  commands: {
    migrate: {
      data: {
        '*uri': 'str',
        '*channels': ['MigrationChannel'],
        '*detach': 'bool',
        '*resume': 'bool',
      },
    },
    'migrate-incoming': {
      data: { '*uri': 'str', '*channels': ['MigrationChannel'], '*exit-on-error': 'bool' },
    },
    migrate_cancel: {},
    'migrate-continue': { data: { state: 'MigrationStatus' } },
    'migrate-pause': { allowOob: true },
    'migrate-recover': { data: { uri: 'str' }, allowOob: true },
    'migrate-set-capabilities': { data: { capabilities: ['MigrationCapabilityStatus'] } },
    'migrate-set-parameters': { data: 'MigrationParameters' },
    'migrate-start-postcopy': {},
    'query-migrate': { returns: 'MigrationInfo' },
    'query-migrate-capabilities': { returns: ['MigrationCapabilityStatus'] },
    'query-migrate-parameters': { returns: 'MigrationParameters' },
    'query-status': { returns: 'StatusInfo' },
    cont: {},
    quit: {},
    stop: {},
  },
  events: {
    MIGRATION: { data: { status: 'MigrationStatus' } },
    MIGRATION_PASS: { data: { pass: 'int' } },
    RESUME: {},
    SHUTDOWN: { data: { guest: 'bool', reason: 'ShutdownCause' } },
    STOP: {},
  },
} as const;

export type MigrationSchema = typeof migrationSchema;

export type MigrationAddress = QapiValue<MigrationSchema, 'MigrationAddress'>;
export type MigrationCapability = QapiValue<MigrationSchema, 'MigrationCapability'>;
export type MigrationCapabilityStatus = QapiValue<MigrationSchema, 'MigrationCapabilityStatus'>;
export type MigrationChannel = QapiValue<MigrationSchema, 'MigrationChannel'>;
export type MigrationInfo = QapiValue<MigrationSchema, 'MigrationInfo'>;
export type MigrationParameters = QapiValue<MigrationSchema, 'MigrationParameters'>;
export type MigrationStats = QapiValue<MigrationSchema, 'MigrationStats'>;
export type MigrationStatus = QapiValue<MigrationSchema, 'MigrationStatus'>;
export type RunState = QapiValue<MigrationSchema, 'RunState'>;
export type ShutdownCause = QapiValue<MigrationSchema, 'ShutdownCause'>;
export type SocketAddress = QapiValue<MigrationSchema, 'SocketAddress'>;
export type StatusInfo = QapiValue<MigrationSchema, 'StatusInfo'>;
export type XbzrleCacheStats = QapiValue<MigrationSchema, 'XBZRLECacheStats'>;
