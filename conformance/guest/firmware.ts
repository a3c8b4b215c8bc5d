import { Assembler, imm16, imm32, rel8, rel16 } from './assembler.ts';
import { bootSectorAddress } from './boot-sector.ts';

/** The size of the firmware image: the least that QEMU takes with `-bios`. */
export const firmwareLengthBytes = 0x1_0000;

const bootSectorOffset = 0x8000;
const resetVectorOffset = 0xfff0;
const virtqueues = 0x30_0000;
const virtqueueStride = 0x4000;

/**
 * Builds a firmware image for `-bios` that starts a boot sector and holds no one else's code.
 *
 * It walks PCI bus 0; to each transitional virtio device it gives an I/O window and, through the
 * legacy registers, guest memory for each virtqueue that the device offers (from 3 MiB, 16 KiB
 * apart), so that a recorded stream shows devices in use. Then it copies the boot sector to 0x7c00
 * and jumps there.
 *
 * ```
 * F000:0000  the code below      F000:8000  the boot sector      F000:FFF0  the reset vector
 * ```
 */
export function firmware(bootSector: Uint8Array): Uint8Array {
  const a = new Assembler(0);
  a.op('cli', 0xfa);
  a.op('cld', 0xfc);
  a.op('mov ebp, virtqueues', 0x66, 0xbd, imm32(virtqueues)); // ebp: the next virtqueue
  a.op('mov ebx, 0x80000000', 0x66, 0xbb, imm32(0x8000_0000)); // ebx: config address, device 0

  a.label('device');
  selectConfigRegister(a, 0x00);
  a.op('in eax, dx', 0x66, 0xed); // device id, vendor id
  a.op('cmp ax, 0x1af4', 0x3d, imm16(0x1af4));
  a.op('jne next_device', 0x75, rel8('next_device'));
  a.op('shr eax, 16', 0x66, 0xc1, 0xe8, 16);
  a.op('cmp ax, 0x1040', 0x3d, imm16(0x1040)); // from there on no legacy registers
  a.op('jae next_device', 0x73, rel8('next_device'));
  setUpVirtioDevice(a);
  a.label('next_device');
  a.op('add bx, 1 << 11', 0x81, 0xc3, imm16(1 << 11));
  a.op('jnc device', 0x0f, 0x83, rel16('device')); // 32 devices

  a.op('mov ax, cs', 0x8c, 0xc8);
  a.op('mov ds, ax', 0x8e, 0xd8);
  a.op('mov si, boot_sector', 0xbe, imm16(bootSectorOffset));
  a.op('xor ax, ax', 0x31, 0xc0);
  a.op('mov es, ax', 0x8e, 0xc0);
  a.op('mov di, 0x7c00', 0xbf, imm16(bootSectorAddress));
  a.op('mov cx, 256', 0xb9, imm16(256));
  a.op('rep movsw', 0xf3, 0xa5);
  a.op('jmp 0:0x7c00', 0xea, imm16(bootSectorAddress), imm16(0));

  a.padTo(bootSectorOffset);
  a.data(bootSector);
  a.padTo(resetVectorOffset);
  a.op('jmp 0xf000:0', 0xea, imm16(0), imm16(0xf000));
  a.padTo(firmwareLengthBytes);
  return a.assemble();
}

/** Leaves the config data port in dx; ebx names the device, its low byte is 0. */
function selectConfigRegister(a: Assembler, register: number): void {
  a.op('mov eax, ebx', 0x66, 0x89, 0xd8);
  a.op('mov al, register', 0xb0, register);
  a.op('mov dx, 0xcf8', 0xba, imm16(0xcf8));
  a.op('out dx, eax', 0x66, 0xef);
  a.op('mov dl, 0xfc', 0xb2, 0xfc);
}

/** @see VIRTIO 1.x, "Virtio Over PCI Bus", legacy interfaces: the registers' offsets */
function setUpVirtioDevice(a: Assembler): void {
  const selectRegister = (offset: number): void => {
    a.op('lea dx, [di + offset]', 0x8d, 0x55, offset);
  };
  a.op('mov di, bx', 0x89, 0xdf);
  a.op('shr di, 3', 0xc1, 0xef, 3);
  a.op('add di, 0xc000', 0x81, 0xc7, imm16(0xc000)); // di: I/O window, 0x100 bytes a device
  selectConfigRegister(a, 0x10); // BAR 0
  a.op('movzx eax, di', 0x66, 0x0f, 0xb7, 0xc7);
  a.op('out dx, eax', 0x66, 0xef);
  selectConfigRegister(a, 0x04); // command
  a.op('mov ax, 7', 0xb8, imm16(7)); // I/O, memory, bus master
  a.op('out dx, ax', 0xef);

  selectRegister(18); // status
  for (const status of [0, 1, 3]) {
    a.op('mov al, status', 0xb0, status); // reset, acknowledge, driver
    a.op('out dx, al', 0xee);
  }
  a.op('xor cx, cx', 0x31, 0xc9); // cx: virtqueue
  a.label('virtqueue');
  selectRegister(14); // queue select
  a.op('mov ax, cx', 0x89, 0xc8);
  a.op('out dx, ax', 0xef);
  selectRegister(12); // queue size
  a.op('in ax, dx', 0xed);
  a.op('test ax, ax', 0x85, 0xc0);
  a.op('jz virtqueues_done', 0x74, rel8('virtqueues_done'));
  selectRegister(8); // queue address
  a.op('mov eax, ebp', 0x66, 0x89, 0xe8);
  a.op('shr eax, 12', 0x66, 0xc1, 0xe8, 12);
  a.op('out dx, eax', 0x66, 0xef);
  a.op('add ebp, virtqueue_stride', 0x66, 0x81, 0xc5, imm32(virtqueueStride));
  a.op('inc cx', 0x41);
  a.op('jmp virtqueue', 0xeb, rel8('virtqueue'));
  a.label('virtqueues_done');
  selectRegister(18);
  a.op('mov al, 7', 0xb0, 7); // driver ok
  a.op('out dx, al', 0xee);
}
