import { type BlockGraph, type BlockNode, type DirtyBitmap, MachineError } from '@wherry/machine';
import type { TransactionAction } from '@wherry/qmp';

/** A change that has been made, and can be taken back until it is committed. */
interface Change {
  abort?(): void;
  commit?(): void;
}

/** What a bitmap must not be for an operation. */
type Check = 'busy' | 'readOnly' | 'inconsistent';

/** Makes changes to bitmaps: all of them, or none. @throws MachineError */
export function changeBitmaps(graph: BlockGraph, actions: readonly TransactionAction[]): void {
  const changes: Change[] = [];
  try {
    for (const action of actions) changes.push(change(graph, action));
  } catch (error) {
    for (const { abort } of changes.toReversed()) abort?.();
    throw error;
  }
  for (const { commit } of changes) commit?.();
}

/** @see block/monitor/bitmap-qmp-cmds.c and the …_action functions of blockdev.c in QEMU */
function change(graph: BlockGraph, action: TransactionAction): Change {
  switch (action.type) {
    case 'block-dirty-bitmap-add':
      return add(graph, action.data);
    case 'block-dirty-bitmap-merge':
      return merge(graph, action.data);
    case 'block-dirty-bitmap-remove': {
      const { node, bitmap } = find(graph, action.data);
      check(bitmap, ['busy', 'readOnly']);
      bitmap.busy = true; // nothing else in the transaction may have it
      const release = (): void => {
        bitmap.busy = false;
      };
      return {
        abort: release,
        commit: () => {
          release();
          node.removeBitmap(bitmap);
        },
      };
    }
    case 'block-dirty-bitmap-clear': {
      const { bitmap } = find(graph, action.data);
      check(bitmap, ['busy', 'readOnly', 'inconsistent']);
      const backup = bitmap.backup();
      bitmap.clear();
      return { abort: () => bitmap.restore(backup) };
    }
    default: {
      const { bitmap } = find(graph, action.data);
      check(bitmap, ['busy', 'inconsistent']);
      const before = bitmap.enabled;
      bitmap.enabled = action.type === 'block-dirty-bitmap-enable';
      return {
        abort: () => {
          bitmap.enabled = before;
        },
      };
    }
  }
}

function add(
  graph: BlockGraph,
  data: (TransactionAction & { type: 'block-dirty-bitmap-add' })['data'],
): Change {
  const node = graph.find(data.node);
  if (data.persistent === true) node.checkCanPersist();
  const bitmap = node.createBitmap(data.name, data.granularity);
  bitmap.persistent = data.persistent === true;
  bitmap.enabled = data.disabled !== true;
  return { abort: () => node.removeBitmap(bitmap) };
}

function merge(
  graph: BlockGraph,
  data: (TransactionAction & { type: 'block-dirty-bitmap-merge' })['data'],
): Change {
  const { node, bitmap: target } = find(graph, { node: data.node, name: data.target });
  check(target, ['busy', 'readOnly', 'inconsistent']);
  const backup = target.backup();
  const abort = (): void => target.restore(backup);
  try {
    for (const from of data.bitmaps) {
      const source = typeof from === 'string' ? node.bitmap(from) : find(graph, from).bitmap;
      check(source, ['busy', 'inconsistent']);
      target.merge(source);
    }
  } catch (error) {
    abort();
    throw error;
  }
  return { abort };
}

function find(
  graph: BlockGraph,
  where: { readonly node: string; readonly name: string },
): { readonly node: BlockNode; readonly bitmap: DirtyBitmap } {
  const node = graph.lookUp(where.node);
  if (node === undefined) {
    throw new MachineError('BLOCK_NODE', `Node '${where.node}' not found`);
  }
  return { node, bitmap: node.bitmap(where.name) };
}

/** @see bdrv_dirty_bitmap_check in QEMU's block/dirty-bitmap.c */
function check(bitmap: DirtyBitmap, unless: readonly Check[]): void {
  const texts: Readonly<Record<Check, string>> = {
    busy: 'is currently in use by another operation and cannot be used',
    readOnly: 'is readonly and cannot be modified',
    inconsistent: 'is inconsistent and cannot be used',
  };
  for (const state of unless) {
    if (bitmap[state]) {
      throw new MachineError('BITMAP_INVALID', `Bitmap '${bitmap.name}' ${texts[state]}`);
    }
  }
}
