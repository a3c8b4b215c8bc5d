import type { QapiValue } from './schema.ts';

/**
 * Defines the commands and events of disks and their dirty bitmaps, with the names of QEMU 10.0; of
 * descriptions that have a type of their own for each driver, and of answers, what a simulated host has.
 *
 * @see QEMU qapi/block-core.json, qapi/block.json, qapi/transaction.json
 */
export const blockSchema = {
  types: {
    BlockDirtyInfo: {
      struct: {
        '*name': 'str',
        count: 'int',
        granularity: 'uint32',
        recording: 'bool',
        busy: 'bool',
        persistent: 'bool',
        '*inconsistent': 'bool',
      },
    },
    ImageInfo: {
      struct: {
        filename: 'str',
        format: 'str',
        'virtual-size': 'int',
        '*cluster-size': 'int',
        '*backing-filename': 'str',
      },
    },
    BlockdevCacheInfo: { struct: { writeback: 'bool', direct: 'bool', 'no-flush': 'bool' } },
    BlockDeviceInfo: {
      struct: {
        file: 'str',
        '*node-name': 'str',
        ro: 'bool',
        drv: 'str',
        '*backing_file': 'str',
        backing_file_depth: 'int',
        '*active': 'bool',
        encrypted: 'bool',
        detect_zeroes: 'str',
        bps: 'int',
        bps_rd: 'int',
        bps_wr: 'int',
        iops: 'int',
        iops_rd: 'int',
        iops_wr: 'int',
        image: 'ImageInfo',
        cache: 'BlockdevCacheInfo',
        write_threshold: 'int',
        '*dirty-bitmaps': ['BlockDirtyInfo'],
      },
    },
    BlockInfo: {
      struct: {
        device: 'str',
        '*qdev': 'str',
        type: 'str',
        removable: 'bool',
        locked: 'bool',
        '*inserted': 'BlockDeviceInfo',
      },
    },
    BlockDirtyBitmap: { struct: { node: 'str', name: 'str' } },
    BlockDirtyBitmapAdd: {
      struct: {
        node: 'str',
        name: 'str',
        '*granularity': 'uint32',
        '*persistent': 'bool',
        '*disabled': 'bool',
      },
    },
    BlockDirtyBitmapOrStr: { alternate: ['str', 'BlockDirtyBitmap'] },
    BlockDirtyBitmapMerge: {
      struct: { node: 'str', target: 'str', bitmaps: ['BlockDirtyBitmapOrStr'] },
    },
    TransactionActionKind: {
      enum: [
        'block-dirty-bitmap-add',
        'block-dirty-bitmap-remove',
        'block-dirty-bitmap-clear',
        'block-dirty-bitmap-enable',
        'block-dirty-bitmap-disable',
        'block-dirty-bitmap-merge',
      ],
    },
    BlockDirtyBitmapWrapper: { struct: { data: 'BlockDirtyBitmap' } },
    BlockDirtyBitmapAddWrapper: { struct: { data: 'BlockDirtyBitmapAdd' } },
    BlockDirtyBitmapMergeWrapper: { struct: { data: 'BlockDirtyBitmapMerge' } },
    TransactionAction: {
      discriminator: 'type',
      by: 'TransactionActionKind',
      union: {
        'block-dirty-bitmap-add': 'BlockDirtyBitmapAddWrapper',
        'block-dirty-bitmap-remove': 'BlockDirtyBitmapWrapper',
        'block-dirty-bitmap-clear': 'BlockDirtyBitmapWrapper',
        'block-dirty-bitmap-enable': 'BlockDirtyBitmapWrapper',
        'block-dirty-bitmap-disable': 'BlockDirtyBitmapWrapper',
        'block-dirty-bitmap-merge': 'BlockDirtyBitmapMergeWrapper',
      },
    },
    MirrorSyncMode: { enum: ['full', 'none'] },
    BlockJobInfo: {
      struct: {
        type: 'str',
        device: 'str',
        len: 'int',
        offset: 'int',
        busy: 'bool',
        paused: 'bool',
        speed: 'int',
        ready: 'bool',
        status: 'str',
      },
    },
  },
  commands: {
    'query-block': { returns: ['BlockInfo'] },
    'query-named-block-nodes': { data: { '*flat': 'bool' }, returns: ['BlockDeviceInfo'] },
    'block-dirty-bitmap-add': { data: 'BlockDirtyBitmapAdd' },
    'block-dirty-bitmap-remove': { data: 'BlockDirtyBitmap' },
    'block-dirty-bitmap-clear': { data: 'BlockDirtyBitmap' },
    'block-dirty-bitmap-enable': { data: 'BlockDirtyBitmap' },
    'block-dirty-bitmap-disable': { data: 'BlockDirtyBitmap' },
    'block-dirty-bitmap-merge': { data: 'BlockDirtyBitmapMerge' },
    transaction: { data: { actions: ['TransactionAction'] } },
    'blockdev-mirror': {
      data: {
        '*job-id': 'str',
        device: 'str',
        target: 'str',
        sync: 'MirrorSyncMode',
        '*filter-node-name': 'str',
      },
    },
    'block-job-cancel': { data: { device: 'str', '*force': 'bool' } },
    'block-job-complete': { data: { device: 'str' } },
    'query-block-jobs': { returns: ['BlockJobInfo'] },
    'human-monitor-command': {
      data: { 'command-line': 'str', '*cpu-index': 'int' },
      returns: 'str',
    },
  },
  events: {
    BLOCK_JOB_READY: {
      data: { type: 'str', device: 'str', len: 'int', offset: 'int', speed: 'int' },
    },
    BLOCK_JOB_COMPLETED: {
      data: {
        type: 'str',
        device: 'str',
        len: 'int',
        offset: 'int',
        speed: 'int',
        '*error': 'str',
      },
    },
    BLOCK_JOB_CANCELLED: {
      data: { type: 'str', device: 'str', len: 'int', offset: 'int', speed: 'int' },
    },
  },
} as const;

export type BlockSchema = typeof blockSchema;

export type BlockDeviceInfo = QapiValue<BlockSchema, 'BlockDeviceInfo'>;
export type BlockDirtyInfo = QapiValue<BlockSchema, 'BlockDirtyInfo'>;
export type BlockInfo = QapiValue<BlockSchema, 'BlockInfo'>;
export type BlockJobInfo = QapiValue<BlockSchema, 'BlockJobInfo'>;
export type TransactionAction = QapiValue<BlockSchema, 'TransactionAction'>;
