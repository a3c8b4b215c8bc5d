import { aarch64Image, ppc64Image, riscvImage, s390xImage } from './guest/images.ts';
import { precopy, type RecordCase } from './record-case.ts';

const { load: _, ...withoutLoad } = precopy;
/** The suite needs no QEMU of other targets, so nothing is loaded again. */
const other: Omit<RecordCase, 'name'> = { ...withoutLoad, releases: ['7.2'] };

/** Guests of other byte orders and page sizes. */
export const targetCases: readonly RecordCase[] = [
  {
    ...other,
    name: 's390x',
    releases: ['7.2', '10.0', '11.1'],
    target: 's390x',
    machine: 's390-ccw-virtio-5.2',
    ram: '16M',
    firmware: s390xImage(),
    args: ['-device', 'virtio-rng-ccw', '-device', 'virtio-serial-ccw'],
  },
  {
    ...other,
    name: 'ppc64',
    releases: ['7.2', '10.0', '11.1'],
    target: 'ppc64',
    machine: 'pseries-5.2',
    ram: '256M',
    firmware: ppc64Image(),
  },
  {
    ...other,
    name: 'aarch64',
    target: 'aarch64',
    machine: 'virt-5.2',
    ram: '8M',
    firmware: aarch64Image(),
    args: ['-cpu', 'cortex-a57', '-device', 'virtio-rng-pci'],
  },
  { ...other, name: 'riscv64', target: 'riscv64', machine: 'virt', firmware: riscvImage() },
  {
    ...other,
    name: 'arm', // 1 KiB pages, and nothing in the stream's head says so
    target: 'arm',
    machine: 'versatilepb',
    firmware: new Uint8Array(4),
  },
];
