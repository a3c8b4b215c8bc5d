import type { SegmentRegister, X86Registers } from './vcpu-registers.ts';

const NT_PRSTATUS = 1;
const PRSTATUS_BYTES = 336;
const PID_OFFSET = 32;
const REGISTERS_OFFSET = 112;
const CPU_STATE_BYTES = 440;
const CPU_STATE_VERSION = 1;

/**
 * Writes the notes of a core file for x86-64 vCPUs: for each the status of a Linux thread, which debuggers read,
 * then for each QEMU's own note, which has the control and table registers, too.
 *
 * @returns little-endian notes, one behind the other
 * @see x86_64_write_elf64_note and cpu_write_qemu_note in QEMU's target/i386/arch_dump.c
 */
export function x86Notes(vcpus: readonly X86Registers[]): Buffer {
  return Buffer.concat([
    ...vcpus.map((vcpu, index) => note('CORE', NT_PRSTATUS, threadStatus(vcpu, index + 1))),
    ...vcpus.map((vcpu) => note('QEMU', 0, cpuState(vcpu))),
  ]);
}

function note(name: string, type: number, content: Buffer): Buffer {
  const head = Buffer.alloc(20);
  head.writeUInt32LE(name.length + 1, 0);
  head.writeUInt32LE(content.length, 4);
  head.writeUInt32LE(type, 8);
  head.write(name, 12, 'latin1');
  return Buffer.concat([head, content]);
}

function threadStatus({ general, rip, rflags, segments }: X86Registers, pid: number): Buffer {
  const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, ...rest] = general as Eight;
  const [r8, r9, r10, r11, r12, r13, r14, r15] = rest as unknown as Eight;
  const [es, cs, ss, ds, fs, gs] = segments as Six;
  const bytes = Buffer.alloc(PRSTATUS_BYTES);
  bytes.writeUInt32LE(pid, PID_OFFSET);
  const selector = (segment: SegmentRegister): bigint => BigInt(segment.selector);
  const registers = [
    ...[r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi],
    ...[0n, rip, selector(cs), rflags, rsp, selector(ss), fs.base, gs.base],
    ...[selector(ds), selector(es), selector(fs), selector(gs)],
  ];
  for (const [i, value] of registers.entries()) {
    bytes.writeBigUInt64LE(value, REGISTERS_OFFSET + i * 8);
  }
  return bytes;
}

function cpuState(vcpu: X86Registers): Buffer {
  const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, ...rest] = vcpu.general as Eight;
  const [es, cs, ss, ds, fs, gs] = vcpu.segments as Six;
  const bytes = Buffer.alloc(CPU_STATE_BYTES);
  let at = bytes.writeUInt32LE(CPU_STATE_VERSION, 0);
  at = bytes.writeUInt32LE(CPU_STATE_BYTES, at);
  const word = (value: bigint): void => {
    at = bytes.writeBigUInt64LE(value, at);
  };
  for (const value of [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, ...rest]) word(value);
  word(vcpu.rip);
  word(vcpu.rflags);
  for (const segment of [cs, ds, es, fs, gs, ss, vcpu.ldt, vcpu.tr, vcpu.gdt, vcpu.idt]) {
    at = bytes.writeUInt32LE(segment.selector, at);
    at = bytes.writeUInt32LE(segment.limit, at);
    at = bytes.writeUInt32LE(segment.flags, at) + 4;
    word(segment.base);
  }
  for (const value of vcpu.control) word(value);
  word(vcpu.kernelGsBase);
  return bytes;
}

type Eight = [bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint, ...bigint[]];
type Six = [
  SegmentRegister,
  SegmentRegister,
  SegmentRegister,
  SegmentRegister,
  SegmentRegister,
  SegmentRegister,
];
