/**
 * Firmware for guests that are not x86-64: what brings state into being that a stopped machine does
 * not have, and then a branch to itself.
 */

/** Builds s390x code for 0x9000: it sets one storage key, which makes the machine keep keys. */
export function s390xImage(): Uint8Array {
  return words(
    0xa708_0030, // lhi   %r0,0x30
    0xa719_2000, // lghi  %r1,0x2000
    0xb22b_0001, // sske  %r0,%r1
    0xa7f4_0000, // j     .
  );
}

/** Builds ppc64 code for a pseries, begun at 0x100: it has the hypervisor enter one page table entry. */
export function ppc64Image(): Uint8Array {
  const image = new Uint8Array(0x200);
  const code = words(
    0x3860_0008, // li  r3,H_ENTER
    0x3880_0000, // li  r4,0
    0x38a0_0080, // li  r5,0x80: the entry's index
    0x38c0_0001, // li  r6,1: valid
    0x38e0_1010, // li  r7,0x1010: page 1, memory coherent
    0x4400_0022, // sc  1
    0x4800_0000, // b   .
  );
  image.set(code, 0x100);
  return image;
}

/** Builds aarch64 code: `b .`, little-endian. */
export function aarch64Image(): Uint8Array {
  return Uint8Array.of(0x00, 0x00, 0x00, 0x14);
}

/** Builds RISC-V code: `j .`, little-endian. */
export function riscvImage(): Uint8Array {
  return Uint8Array.of(0x6f, 0x00, 0x00, 0x00);
}

/** Lays words out big-endian. */
function words(...values: readonly number[]): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, i) => {
    bytes.setUint32(i * 4, value);
  });
  return new Uint8Array(bytes.buffer);
}
