import { releases } from '../peers/peers.ts';
import type { QemuOptions } from '../qemu.ts';
import { nullDisk, zooCases } from '../record-zoo.ts';
import type { Mode } from './cell.ts';
import { received } from './received.ts';
import { sent } from './sent.ts';

/** A machine as one of the recorded zoos. */
function zoo(name: string): QemuOptions {
  const { machine, ram, firmware, args } = zooCases.find((known) => known.name === name)!;
  return { machine, ram, firmware, args };
}

const virtioNet: QemuOptions = { args: ['-device', 'virtio-net-pci,romfile='] };
const both: Pick<Mode, 'group' | 'source' | 'destination'> = {
  group: 'devices',
  source: received(),
  destination: sent(),
};

const devices: readonly Mode[] = [
  { ...both, name: 'none' },
  { ...both, name: 'e1000e', machine: { args: ['-device', 'e1000e,romfile='] } },
  {
    ...both,
    name: 'nvme',
    since: 11.1, // before, it blocks migration
    machine: { args: [...nullDisk('disk0'), '-device', 'nvme,serial=wherry,drive=disk0'] },
  },
  {
    ...both,
    name: 'xhci',
    machine: {
      args: ['-device', 'qemu-xhci,id=xhci', '-device', 'usb-kbd,bus=xhci.0'],
    },
  },
  {
    ...both,
    name: 'ahci',
    machine: { args: [...nullDisk('disk0'), '-device', 'ide-hd,bus=ide.0,drive=disk0'] },
  },
  { ...both, name: 'q35, virtio zoo and others', machine: zoo('zoo-q35') },
  { ...both, name: 'pc, virtio zoo and others', machine: zoo('zoo-pc') },
  { ...both, name: 'microvm, virtio zoo', machine: zoo('zoo-microvm') },
  ...['aarch64 virt', 'riscv64 virt', 'ppc64 pseries', 's390x'].map((name): Mode => {
    const why = 'not tried: no peer has this QEMU; its recorded streams are read (fixtures)';
    return { group: 'devices', name, source: why, destination: why };
  }),
];

const pairs: readonly Mode[] = releases.flatMap((to) =>
  (
    [
      ['no devices', {}],
      ['virtio-net', virtioNet],
    ] as const
  ).map(
    ([name, machine]): Mode => ({
      group: 'QEMU → wherry → QEMU of another release, pc-q35-5.2',
      name: `into ${to}, ${name}`,
      machine,
      lacking: { [to]: 'the same release' },
      source: received({ to }),
      destination: 'the row names it',
      ...(to === '11.1' && machine === virtioNet
        ? {
            failing: [
              {
                side: 'source',
                releases: ['10.0'],
                cause: '10.0 shows legacy drivers queues of 1024 entries, which 11.1 refuses',
                says: /VQ 0 vring.num 1024 exceeds allocated max 256/,
              },
            ],
          }
        : {}),
    }),
  ),
);

/** Rows about who the guest is, and where it goes, rather than how. */
export const deviceModes: readonly Mode[] = [...devices, ...pairs];
