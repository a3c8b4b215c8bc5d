import type { VirtioState } from './virtio.ts';
import { enabledPci } from './virtio-pci-config.ts';

/** Where the guest's drivers keep their virtqueues, in the first RAM block. */
export const RING_GPA = 0x1_0000;
/** Target pages of one virtqueue of 256 entries: descriptors, available ring, used ring. */
export const QUEUE_PAGES = 3;
/** Queues that the guest drives: network receive and transmit, block. */
export const DRIVEN_QUEUES = 3;
/** Low guest memory, which belongs to firmware and drivers and to no workload. */
export const LOW_MEMORY_BYTES = 0x2_0000;

const ACKNOWLEDGED_DRIVER_OK = 0x07;
const PAGE_BYTES = 4096;

/** Locates a driven queue. @param ring 0 … {@link DRIVEN_QUEUES} - 1 */
function ringGpa(ring: number): number {
  return RING_GPA + ring * QUEUE_PAGES * PAGE_BYTES;
}

/**
 * Returns the state of a virtio device whose first queues a legacy driver set up.
 *
 * @param rings the driven queues that are the device's, in order
 */
export function drivenVirtio<D>(
  state: VirtioState<D>,
  slot: number,
  rings: readonly number[],
): VirtioState<D> {
  return {
    ...state,
    pci: enabledPci(state.pci, slot),
    status: ACKNOWLEDGED_DRIVER_OK,
    queue_sel: state.queues.length,
    started: true,
    queues: state.queues.map((queue, i) =>
      rings[i] === undefined ? queue : { ...queue, desc: BigInt(ringGpa(rings[i])) },
    ),
    vq: state.vq.map((addresses, i) => {
      if (rings[i] === undefined) return addresses;
      const gpa = ringGpa(rings[i]);
      return { avail: BigInt(gpa + PAGE_BYTES), used: BigInt(gpa + 2 * PAGE_BYTES) };
    }),
  };
}

/** Returns the state after the driver, if there is one, made `rounds` requests on each queue that is set up. */
export function virtioAfter<D>(state: VirtioState<D>, rounds: number | undefined): VirtioState<D> {
  if (rounds === undefined) return state;
  return {
    ...state,
    queues: state.queues.map((queue) =>
      queue.desc === 0n ? queue : { ...queue, last_avail_idx: rounds & 0xffff },
    ),
  };
}
