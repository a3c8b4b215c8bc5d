import { precopy, type RecordCase } from './record-case.ts';

/** An empty disk that needs no file. */
export function nullDisk(name: string): readonly string[] {
  return ['-blockdev', `driver=null-co,node-name=${name},size=1048576,read-zeroes=on`];
}

/** Devices that plug into any PCI bus. ROMs are left out: they are other people's code. */
const pciDevices: readonly string[] = [
  ...['-device', 'virtio-net-pci,romfile='],
  ...[...nullDisk('disk0'), '-device', 'virtio-blk-pci,drive=disk0'],
  ...[...nullDisk('disk1'), '-device', 'virtio-scsi-pci,id=scsi'],
  ...['-device', 'scsi-hd,bus=scsi.0,drive=disk1'],
  ...['-device', 'virtio-balloon-pci'],
  ...['-device', 'virtio-rng-pci'],
  ...['-device', 'virtio-serial-pci,max_ports=4', '-chardev', 'null,id=port0'],
  ...['-device', 'virtserialport,chardev=port0,name=port0'],
  ...['-device', 'e1000e,romfile='],
  ...['-device', 'qemu-xhci,id=xhci', '-device', 'usb-kbd,bus=xhci.0'],
  ...['-device', 'usb-tablet,bus=xhci.0'],
  ...['-device', 'ich9-intel-hda', '-audiodev', 'none,id=audio'],
  ...['-device', 'hda-duplex,audiodev=audio'],
  ...['-device', 'VGA,vgamem_mb=1,romfile='],
];

/** A q35 full of devices. */
export const q35Zoo: Pick<RecordCase, 'firmware' | 'args'> = {
  firmware: 'flash',
  args: [...pciDevices, ...nullDisk('disk2'), '-device', 'ide-hd,bus=ide.0,drive=disk2'],
};

/** Machines full of devices. */
export const zooCases: readonly RecordCase[] = [
  { ...precopy, name: 'zoo-q35', ...q35Zoo },
  {
    ...precopy,
    name: 'zoo-pc',
    machine: 'pc-i440fx-5.2',
    firmware: 'flash',
    args: [
      ...pciDevices,
      ...[...nullDisk('disk2'), '-device', 'ide-hd,bus=ide.0,drive=disk2'],
      ...[...nullDisk('disk3'), '-device', 'ich9-ahci,id=ahci'],
      ...['-device', 'ide-hd,bus=ahci.0,drive=disk3'],
    ],
  },
  {
    ...precopy,
    name: 'zoo-microvm',
    machine: 'microvm',
    args: [
      ...['-device', 'virtio-net-device'],
      ...[...nullDisk('disk0'), '-device', 'virtio-blk-device,drive=disk0'],
      ...[...nullDisk('disk1'), '-device', 'virtio-scsi-device,id=scsi'],
      ...['-device', 'scsi-hd,bus=scsi.0,drive=disk1'],
      ...['-device', 'virtio-balloon-device'],
      ...['-device', 'virtio-rng-device'],
      ...['-device', 'virtio-serial-device,max_ports=4', '-chardev', 'null,id=port0'],
      ...['-device', 'virtserialport,chardev=port0,name=port0'],
    ],
  },
  {
    ...precopy,
    name: 'nvme',
    releases: ['11.1'], // before, nvme blocks migration
    args: [...nullDisk('disk0'), '-device', 'nvme,serial=wherry,drive=disk0'],
  },
];
