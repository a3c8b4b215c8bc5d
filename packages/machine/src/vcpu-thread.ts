import { GuestRam, type GuestRamHandle } from '@wherry/page-engine';
import { PAGES_PER_SECOND } from './control-layout.ts';
import { VcpuControl } from './vcpu-control.ts';
import { UNTHROTTLED } from './vcpu-spec.ts';
import { type VcpuCore, WorkloadCore } from './workload-core.ts';

/** What a vCPU's thread is started with; can be posted to a worker. */
export interface VcpuThreadInit {
  readonly ram: GuestRamHandle;
  readonly vcpu: number;
}

/** A running thread, as the application hands it to the machine. */
export interface VcpuThread {
  /** Ends the thread at once, even while it waits for a page. */
  terminate(): Promise<unknown>;
  /** Takes what to call when the thread fails. */
  onError(callback: (error: unknown) => void): void;
}

/** What a vCPU's thread may be given instead of the defaults. */
export interface VcpuThreadEnvironment {
  /** A clock in milliseconds; default `performance.now`. */
  readonly now?: () => number;
  /** Makes what the vCPU executes; default the workload that its control block names. */
  readonly createCore?: (ram: GuestRam, vcpu: number) => Promise<VcpuCore>;
}

const SLICE_MS = 1;
const MAX_SLICE_PAGES = 4096;
const CHUNK_PAGES = 256;
const KICK_INTERVAL_MS = 10;
/** How long a throttled vCPU runs before it sleeps. @see CPU_THROTTLE_TIMESLICE_NS in QEMU's migration/cpu-throttle.c */
const THROTTLED_RUN_MS = 10;
/** A vCPU that was held up catches up with no more than this much work. */
const MAX_ARREARS_MS = 50;

/**
 * Runs a vCPU: the whole program of its thread. Resolves when the machine closes.
 *
 * Blocks the thread between commands, and wherever the vCPU waits.
 */
export async function runVcpuThread(
  init: VcpuThreadInit,
  environment: VcpuThreadEnvironment = {},
): Promise<void> {
  const now = environment.now ?? ((): number => performance.now());
  const ram = await GuestRam.attach(init.ram);
  const control = new VcpuControl(ram, init.vcpu);
  const core =
    (await environment.createCore?.(ram, init.vcpu)) ??
    (await WorkloadCore.create(ram, control, now));
  for (let command = control.command; command !== 'exit'; command = control.command) {
    switch (command) {
      case 'park':
        control.state = 'parked';
        control.waitWhile('park');
        break;
      case 'run':
        control.state = 'busy';
        runSlices(control, core, now);
        break;
      case 'fill':
      case 'verify':
        control.state = 'busy';
        while (control.command === command) {
          const looked =
            command === 'fill'
              ? core.fill(control.fillShare, CHUNK_PAGES)
              : core.verify(CHUNK_PAGES);
          if (looked === 0) control.finish(command);
        }
        break;
    }
  }
}

/** Runs slices of about a millisecond, at the vCPU's rate, until there is another command. */
function runSlices(control: VcpuControl, core: VcpuCore, now: () => number): void {
  const rate = control.u32(PAGES_PER_SECOND);
  const throttled = rate !== UNTHROTTLED;
  const maxDue = (rate * MAX_ARREARS_MS) / 1000 + 1;
  let slice = 64;
  let due = 0;
  let last = now();
  let nextKick = last;
  let awakeSince = last;
  while (control.command === 'run') {
    if (!control.active) {
      control.waitWhile('run');
      continue;
    }
    const start = now();
    if (start >= nextKick) {
      core.kick();
      nextKick = start + KICK_INTERVAL_MS;
    }
    const { throttle } = control;
    if (throttle === 0) awakeSince = start;
    else if (start - awakeSince >= THROTTLED_RUN_MS) {
      control.waitWhile('run', (THROTTLED_RUN_MS * throttle) / (100 - throttle));
      awakeSince = last = now(); // its rate is that of its waking hours: nothing is made up for
      continue;
    }
    let pages = slice;
    if (throttled) {
      due = Math.min(due + ((start - last) * rate) / 1000, maxDue);
      last = start;
      if (due < 1) {
        const untilNextMs = ((1 - due) * 1000) / rate;
        control.waitWhile('run', Math.max(untilNextMs, SLICE_MS));
        continue;
      }
      pages = Math.min(slice, Math.floor(due));
    }
    const written = core.run(pages);
    if (written === 0) control.waitWhile('run', SLICE_MS);
    due -= written;
    const tookMs = Math.max(now() - start, 0.001);
    const fitting = Math.floor((written * SLICE_MS) / tookMs);
    slice = Math.min(Math.max(fitting, 1), slice * 2, MAX_SLICE_PAGES);
  }
}
