import { PCI_CONFIG_BYTES, type PciState } from './pci.ts';

/** What tells one virtio PCI function from another. */
export interface VirtioPciIdentity {
  /** PCI device id of the transitional device, 0x1000 … */
  readonly deviceId: number;
  /** The virtio device type, which is the subsystem id. */
  readonly virtioId: number;
  /** Base class and subclass. */
  readonly classCode: number;
  /** Vectors of its MSI-X table, 0 without. */
  readonly msixVectors: number;
}

const VENDOR_RED_HAT = 0x1af4;
const STATUS_CAPABILITY_LIST = 0x0010;
const BAR_IO = 0x01;
const BAR_64_PREFETCHABLE = 0x0c;
const PIN_A = 1;

// Virtio structures, each a region of the modern BAR.
const MODERN_BAR = 4;
const COMMON = 1;
const NOTIFY = 2;
const ISR = 3;
const DEVICE = 4;
const PCI_CFG = 5;

/**
 * Builds the state of a transitional virtio function at power-on, field by field.
 *
 * @see virtio_pci_realize, virtio_pci_device_plugged in QEMU's hw/virtio/virtio-pci.c
 */
export function virtioPciAtPowerOn(identity: VirtioPciIdentity): PciState {
  const config = new Uint8Array(PCI_CONFIG_BYTES);
  const view = new DataView(config.buffer);
  const u16 = (at: number, value: number): void => view.setUint16(at, value, true);
  const u32 = (at: number, value: number): void => view.setUint32(at, value, true);

  u16(0x00, VENDOR_RED_HAT);
  u16(0x02, identity.deviceId);
  u16(0x06, STATUS_CAPABILITY_LIST);
  u16(0x0a, identity.classCode);
  u32(0x10, BAR_IO); // legacy registers
  u32(0x20, BAR_64_PREFETCHABLE); // modern registers, with 0x24
  u16(0x2c, VENDOR_RED_HAT);
  u16(0x2e, identity.virtioId);
  config[0x3d] = PIN_A;

  // Capabilities are linked newest first.
  let next = 0;
  const capability = (at: number, id: number): void => {
    config[at] = id;
    config[at + 1] = next;
    next = at;
  };
  const structure = (
    at: number,
    type: number,
    lengthBytes: number,
    offset: number,
    size: number,
  ) => {
    capability(at, 0x09);
    config[at + 2] = lengthBytes;
    config[at + 3] = type;
    config[at + 4] = type === PCI_CFG ? 0 : MODERN_BAR;
    u32(at + 8, offset);
    u32(at + 12, size);
  };
  structure(0x40, COMMON, 16, 0x0000, 0x1000);
  structure(0x50, ISR, 16, 0x1000, 0x1000);
  structure(0x60, DEVICE, 16, 0x2000, 0x1000);
  structure(0x70, NOTIFY, 20, 0x3000, 0x1000);
  u32(0x80, 4); // bytes from one queue's notification to the next
  structure(0x84, PCI_CFG, 20, 0, 0);
  if (identity.msixVectors > 0) {
    capability(0x98, 0x11);
    u16(0x9a, identity.msixVectors - 1);
    u32(0x9c, 0x0000 | 1); // table in BAR 1
    u32(0xa0, 0x0800 | 1); // pending bits in BAR 1
  }
  config[0x34] = next;
  return { version_id: 2, config, irq_state: [0, 0, 0, 0] };
}

const COMMAND = 0x04;
const COMMAND_IO_MEMORY_MASTER = 0x0007;
const LEGACY_BAR = 0x10;
const LEGACY_PORTS = 0xc000;
const LEGACY_PORTS_PER_SLOT = 0x100;

/** Returns the state as firmware and a legacy driver leave it: I/O BAR placed, decoding and bus master on. */
export function enabledPci(state: PciState, slot: number): PciState {
  const config = state.config.slice();
  const view = new DataView(config.buffer);
  view.setUint16(COMMAND, COMMAND_IO_MEMORY_MASTER, true);
  view.setUint32(LEGACY_BAR, (LEGACY_PORTS + slot * LEGACY_PORTS_PER_SLOT) | BAR_IO, true);
  return { ...state, config };
}
