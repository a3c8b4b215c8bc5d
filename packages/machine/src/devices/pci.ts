import type { ByteReader, ByteWriter } from '@wherry/bytes';
import {
  type Description,
  describe,
  type FixedKind,
  field,
  i32AtMost,
  VmstateError,
} from '@wherry/vmstate';

/** Bytes of a conventional device's configuration space. */
export const PCI_CONFIG_BYTES = 256;
const PINS = 4;

const CAPABILITIES = 0x34;
const FIRST_CAPABILITY = 0x40;
const CAPABILITY_MSIX = 0x11;
const CAPABILITY_VENDOR = 0x09;
const VIRTIO_CAP_PCI_CFG = 5;

/** Where a configuration space is what the device is: both sides must have the same bytes there. */
function identityMask(config: Uint8Array): Uint8Array {
  const mask = new Uint8Array(PCI_CONFIG_BYTES);
  mask.fill(0xff, 0x00, 0x04); // vendor, device
  mask.fill(0xff, 0x08, 0x0c); // revision, class
  mask[0x0e] = 0xff; // header type
  mask[CAPABILITIES] = 0xff;
  for (let at = config[CAPABILITIES]!, guard = 0; at >= FIRST_CAPABILITY && guard < 16; guard++) {
    mask.fill(0xff, at, at + 2);
    if (config[at] === CAPABILITY_MSIX) {
      mask[at + 2] = 0xff; // vectors
      mask[at + 3] = 0x07;
      mask.fill(0xff, at + 4, at + 12);
    } else if (config[at] === CAPABILITY_VENDOR && config[at + 3] !== VIRTIO_CAP_PCI_CFG) {
      mask.fill(0xff, at, at + config[at + 2]!);
    }
    at = config[at + 1]!;
  }
  return mask;
}

/**
 * Raw configuration space. Refuses one of another device.
 *
 * @see vmstate_info_pci_config in QEMU's hw/pci/pci.c
 */
const pciConfig: FixedKind<Uint8Array> = {
  type: 'pci config',
  fixedBytes: PCI_CONFIG_BYTES,
  save(writer: ByteWriter, value: Uint8Array) {
    writer.raw(value);
    return undefined;
  },
  load(reader: ByteReader, current, context) {
    const { offset } = reader;
    const config = reader.copy(PCI_CONFIG_BYTES);
    if (current === undefined) return config;
    const mask = identityMask(current);
    const wrong = config.findIndex((byte, i) => ((byte ^ current[i]!) & mask[i]!) !== 0);
    if (wrong >= 0) {
      throw new VmstateError('VALUE_MISMATCH', 'The configuration space is of another device', {
        expected: `0x${current[wrong]!.toString(16)} at 0x${wrong.toString(16)}`,
        found: `0x${config[wrong]!.toString(16)}`,
        offset: offset + wrong,
        path: context.path,
        likely: 'Another device sits at this address on the other side, or another version of it',
      });
    }
    return config;
  },
};

/** State of the four interrupt pins, 0 or 1. @see vmstate_info_pci_irq_state in QEMU's hw/pci/pci.c */
const pciIrqState: FixedKind<readonly number[]> = {
  type: 'pci irq state',
  fixedBytes: PINS * 4,
  save(writer: ByteWriter, value: readonly number[]) {
    for (let pin = 0; pin < PINS; pin++) writer.u32(value[pin] ?? 0);
    return undefined;
  },
  load(reader: ByteReader, _current, context) {
    const pins: number[] = [];
    for (let pin = 0; pin < PINS; pin++) {
      const { offset } = reader;
      const level = reader.u32();
      if (level > 1) {
        throw new VmstateError('VALUE_INVALID', 'An interrupt pin has no such level', {
          expected: '0 or 1',
          found: `${level}`,
          offset,
          path: [...context.path, `${pin}`],
          likely: 'The stream is corrupt, or an earlier field has another size on the other side',
        });
      }
      pins.push(level);
    }
    return pins;
  },
};

/** State that every conventional PCI device has. */
export interface PciState {
  version_id: number;
  /** {@link PCI_CONFIG_BYTES} bytes, little-endian fields. */
  config: Uint8Array;
  /** Level of each interrupt pin, 0 or 1. */
  irq_state: readonly number[];
}

/** Describes {@link PciState}. @see vmstate_pci_device in QEMU's hw/pci/pci.c */
export const pciDescription: Description<PciState> = describe({
  name: 'PCIDevice',
  version: 2,
  minimumVersion: 1,
  fields: [
    field('version_id', i32AtMost),
    field('config', pciConfig),
    field('irq_state', pciIrqState, { since: 2 }),
  ],
});
