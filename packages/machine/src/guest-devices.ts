import type { DeviceRegistry } from '@wherry/vmstate';
import { rtcAt, rtcAtPowerOn, rtcDescription } from './devices/rtc.ts';
import { serialAtReset, serialDescription } from './devices/serial.ts';
import {
  virtioBalloonAtPowerOn,
  virtioBalloonDescription,
  virtioBlkAtPowerOn,
  virtioBlkDescription,
  virtioNetAtPowerOn,
  virtioNetDescription,
} from './devices/virtio-devices.ts';
import { drivenVirtio, virtioAfter } from './devices/virtio-driver.ts';
import {
  virtualClockAfter,
  virtualClockAtPowerOn,
  virtualClockDescription,
} from './devices/virtual-clock.ts';

const MAC = Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34, 0x56);
/** I/O port of the serial line, under which QEMU up to 0.12 sent its section. */
const SERIAL_PORT = 0x3f8;
const NET_SLOT = 2;
const BLK_SLOT = 3;
// Which of the guest's rings are a device's first queues.
const NET_RINGS = [0, 1];
const BLK_RINGS = [2];

/** What {@link GuestDevices} takes. */
export interface GuestDevicesOptions {
  /** Wall clock, ms since the epoch. */
  readonly now: () => number;
  readonly ramBytes: number;
  /** Rounds that the guest's drivers made over the virtqueues; undefined while none run. */
  readonly rounds: () => number | undefined;
}

/**
 * Holds the devices of a guest on a q35 board: what they are at power-on or what was loaded, and
 * how the guest's progress since then changed them. State is derived when it is saved.
 */
export class GuestDevices {
  readonly #options: GuestDevicesOptions;
  #runningSinceMs: number | undefined;
  #clock = virtualClockAtPowerOn();
  #rtc;
  /** From a load until the guest runs the clock stands as it came: saved again it is the same. */
  #rtcIsLoaded = false;
  #serial = serialAtReset();
  #net = virtioNetAtPowerOn(MAC);
  #blk = virtioBlkAtPowerOn();
  #balloon = virtioBalloonAtPowerOn();

  constructor(options: GuestDevicesOptions) {
    this.#options = options;
    this.#rtc = rtcAtPowerOn(this.#nowNs(), options.ramBytes);
  }

  /** Registers the clock, which comes before the vCPUs. */
  registerClock(registry: DeviceRegistry): void {
    registry.register({
      description: virtualClockDescription,
      get: () => virtualClockAfter(this.#clock, this.#ranNs()),
      set: (state) => {
        this.#clock = state;
      },
    });
  }

  /** Registers the others, in QEMU's order. */
  registerOthers(registry: DeviceRegistry): void {
    registry.register({
      description: rtcDescription,
      get: () => (this.#rtcIsLoaded ? this.#rtc : rtcAt(this.#rtc, this.#nowNs())),
      set: (state) => {
        this.#rtc = state;
        this.#rtcIsLoaded = true;
      },
    });
    registry.register({
      alias: { instanceId: SERIAL_PORT, requiredForVersion: 3 },
      description: serialDescription,
      get: () => this.#serialNow(),
      set: (state) => {
        this.#serial = state;
      },
    });
    registry.register({
      busPath: `0000:00:0${NET_SLOT}.0`,
      description: virtioNetDescription,
      get: () => ({ virtio: virtioAfter(this.#net, this.#options.rounds()) }),
      set: ({ virtio }) => {
        this.#net = virtio;
      },
    });
    registry.register({
      busPath: `0000:00:0${BLK_SLOT}.0`,
      description: virtioBlkDescription,
      get: () => ({ virtio: virtioAfter(this.#blk, this.#options.rounds()) }),
      set: ({ virtio }) => {
        this.#blk = virtio;
      },
    });
    registry.register({
      busPath: '0000:00:04.0',
      description: virtioBalloonDescription,
      get: () => ({ virtio: this.#balloon }),
      set: ({ virtio }) => {
        this.#balloon = virtio;
      },
    });
  }

  /** Sets the devices up as the guest's firmware and drivers do. */
  boot(): void {
    const { state } = this.#serial;
    this.#serial = { state: { ...state, divider: 1, lcr: 0x03 } }; // 115200 baud, 8 bits
    this.#net = drivenVirtio(this.#net, NET_SLOT, NET_RINGS);
    this.#blk = drivenVirtio(this.#blk, BLK_SLOT, BLK_RINGS);
  }

  /** Lets the guest's clock run. */
  started(): void {
    this.#rtcIsLoaded = false;
    this.#runningSinceMs ??= this.#options.now();
  }

  /** Halts the guest's clock. */
  stopped(): void {
    this.#clock = virtualClockAfter(this.#clock, this.#ranNs());
    this.#runningSinceMs = undefined;
  }

  #serialNow(): ReturnType<typeof serialAtReset> {
    const rounds = this.#options.rounds();
    if (rounds === undefined) return this.#serial;
    // The driver keeps a heartbeat in the scratch register.
    return { state: { ...this.#serial.state, scr: rounds & 0xff } };
  }

  #ranNs(): bigint {
    if (this.#runningSinceMs === undefined) return 0n;
    return toNs(Math.max(this.#options.now() - this.#runningSinceMs, 0));
  }

  #nowNs(): bigint {
    return toNs(this.#options.now());
  }
}

function toNs(ms: number): bigint {
  return BigInt(Math.floor(ms)) * 1_000_000n + BigInt(Math.floor((ms % 1) * 1e6));
}
