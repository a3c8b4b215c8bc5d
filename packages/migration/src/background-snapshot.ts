import { ByteWriter } from '@wherry/bytes';
import type { RamSender } from '@wherry/page-engine';
import type { GlobalState } from './global-state.ts';
import type { GuestPort } from './guest-port.ts';
import type { DeviceState, SourceFrames } from './source-frames.ts';
import type { SourceStatistics } from './source-statistics.ts';

/** What {@link saveRunningGuest} works on. */
interface Snapshot {
  readonly guest: GuestPort;
  readonly globalState: GlobalState;
  readonly frames: SourceFrames;
  /** Owes all pages. */
  readonly sender: RamSender;
  readonly statistics: SourceStatistics;
  /** Whether shared blocks are left out. */
  readonly isIgnoringShared: boolean;
  /** Sends all that is owed. */
  readonly sendRam: () => Promise<void>;
}

/**
 * Sends a guest's RAM as it is now while the guest runs on, but for the moment in which its devices are
 * saved.
 *
 * @returns what goes behind the RAM, which has no END: devices and end of the stream
 * @see bg_migration_thread in QEMU's migration/migration.c
 */
export async function saveRunningGuest(
  snapshot: Snapshot,
): Promise<{ readonly bytes: Uint8Array; readonly states: readonly DeviceState[] }> {
  const { guest, globalState, sender, statistics, isIgnoringShared, sendRam } = snapshot;
  const wasRunning = guest.running;
  const rest = new ByteWriter();
  const frames = snapshot.frames.into(rest);
  globalState.runState = wasRunning ? 'running' : 'paused';
  statistics.guestStopped();
  if (wasRunning) await guest.stop();
  let guard: SnapshotGuard | undefined;
  try {
    frames.devices();
    frames.end(true);
    if (isIgnoringShared) await guest.shared?.save();
    guard = new SnapshotGuard(guest, sender);
  } finally {
    if (wasRunning) guest.start();
    statistics.guestResumed();
  }
  try {
    await sendRam();
  } finally {
    await guard.end();
  }
  return { bytes: rest.bytes, states: frames.states };
}

/**
 * Keeps the pages of a guest as they are until they were sent, while the guest runs on: a page that it
 * touches before counts as missing, as in postcopy, and is sent next. It costs the guest nothing more than
 * the look at a page's presence, which it has anyhow.
 *
 * @see ram_write_tracking_start in QEMU's migration/ram.c, which write-protects instead
 */
class SnapshotGuard {
  readonly #guest: Pick<GuestPort, 'faults' | 'ram'>;
  readonly #sender: RamSender;
  readonly #ended = new AbortController();
  readonly #serving: Promise<void>;

  /** Takes hold of the guest, which stands still. */
  constructor(guest: Pick<GuestPort, 'faults' | 'ram'>, sender: RamSender) {
    this.#guest = guest;
    this.#sender = sender;
    guest.faults.repeat();
    sender.enterSnapshot();
    this.#serving = this.#serve();
  }

  async #serve(): Promise<void> {
    const { faults } = this.#guest;
    const { signal } = this.#ended;
    while (!signal.aborted) {
      for (const { block, offsetBytes, lengthBytes } of faults.take()) {
        this.#sender.request(block, offsetBytes, lengthBytes);
      }
      await faults.wait(signal);
    }
  }

  /** Lets the guest go, whatever was sent. */
  async end(): Promise<void> {
    this.#ended.abort();
    await this.#serving;
    this.#guest.ram.setAllReceived(true);
  }
}
