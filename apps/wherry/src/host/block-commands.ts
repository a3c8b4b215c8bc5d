import { type BlockGraph, type BlockNode, MachineError } from '@wherry/machine';
import {
  type BlockDeviceInfo,
  type BlockSchema,
  type QapiReturn,
  QmpCommandError,
  type QmpHandlers,
} from '@wherry/qmp';
import { changeBitmaps } from './bitmap-commands.ts';
import type { BlockJobs } from './block-jobs.ts';
import type { HostSchema } from './host-schema.ts';
import { humanMonitorCommand } from './qemu-io.ts';

type BlockCommands = Pick<QmpHandlers<HostSchema>, keyof BlockSchema['commands']>;

/** Answers QMP for a host's disks. */
export function blockCommands(graph: BlockGraph, jobs: BlockJobs): BlockCommands {
  const change = (...actions: Parameters<typeof changeBitmaps>[1]): void =>
    refusing(() => changeBitmaps(graph, actions));
  return {
    'query-block': () => describeBackends(graph),
    'query-named-block-nodes': () => graph.nodes.toReversed().map(describeNode),
    'block-dirty-bitmap-add': (data) => change({ type: 'block-dirty-bitmap-add', data }),
    'block-dirty-bitmap-remove': (data) => change({ type: 'block-dirty-bitmap-remove', data }),
    'block-dirty-bitmap-clear': (data) => change({ type: 'block-dirty-bitmap-clear', data }),
    'block-dirty-bitmap-enable': (data) => change({ type: 'block-dirty-bitmap-enable', data }),
    'block-dirty-bitmap-disable': (data) => change({ type: 'block-dirty-bitmap-disable', data }),
    'block-dirty-bitmap-merge': (data) => change({ type: 'block-dirty-bitmap-merge', data }),
    transaction: ({ actions }) => change(...actions),
    'blockdev-mirror': (options) => refusing(() => jobs.mirror(options)),
    'block-job-cancel': ({ device }) => refusing(() => jobs.cancel(device)),
    'block-job-complete': ({ device }) => refusing(() => jobs.complete(device)),
    'query-block-jobs': () => jobs.list(),
    'human-monitor-command': ({ 'command-line': line }) => humanMonitorCommand(graph, line),
  };
}

function refusing(run: () => void): void {
  try {
    run();
  } catch (error) {
    if (error instanceof MachineError) throw new QmpCommandError('GenericError', error.message);
    throw error;
  }
}

function describeBackends(graph: BlockGraph): QapiReturn<HostSchema, 'query-block'> {
  return graph.backends.map(({ name, qdev, root }) => ({
    device: name,
    ...(qdev === undefined ? {} : { qdev }),
    type: 'unknown',
    removable: qdev === undefined,
    locked: false,
    inserted: describeNode(root),
  }));
}

/** @see bdrv_block_device_info in QEMU's block/qapi.c */
function describeNode(node: BlockNode): BlockDeviceInfo {
  const { nodeName, driver, readOnly, filename, sizeBytes, clusterBytes, backing } = node;
  const image = {
    filename,
    format: driver,
    'virtual-size': sizeBytes,
    ...(clusterBytes === undefined ? {} : { 'cluster-size': clusterBytes }),
    ...(node.backingFilename === undefined ? {} : { 'backing-filename': node.backingFilename }),
  };
  const bitmaps = node.bitmaps.map((bitmap) => ({
    ...(bitmap.name === undefined ? {} : { name: bitmap.name }),
    count: bitmap.dirtyBytes,
    granularity: bitmap.granularityBytes,
    recording: bitmap.recording,
    busy: bitmap.busy,
    persistent: bitmap.persistent,
    ...(bitmap.inconsistent ? { inconsistent: true } : {}),
  }));
  let depth = 0;
  for (let below = backing; below !== undefined; below = below.backing) depth++;
  return {
    file: filename,
    'node-name': nodeName,
    ro: readOnly,
    drv: driver,
    ...(backing === undefined ? {} : { backing_file: backing.filename }),
    backing_file_depth: depth,
    active: !node.isInactive,
    encrypted: false,
    detect_zeroes: 'off',
    ...{ bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 },
    image,
    cache: { writeback: true, direct: false, 'no-flush': false },
    write_threshold: 0,
    ...(bitmaps.length === 0 ? {} : { 'dirty-bitmaps': bitmaps }),
  };
}
