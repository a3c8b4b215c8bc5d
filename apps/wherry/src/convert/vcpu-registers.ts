import { decodeDevices, type StreamModel } from '@wherry/snapshot';
import type { StateNode } from '@wherry/vmstate';

/** A segment register with what the processor keeps of its descriptor. */
export interface SegmentRegister {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  readonly flags: number;
}

/** What a core file says of an x86 vCPU. */
export interface X86Registers {
  /** 16 of them, in the order of their numbers in instructions: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … */
  readonly general: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  /** Six of them: es, cs, ss, ds, fs, gs. */
  readonly segments: readonly SegmentRegister[];
  readonly ldt: SegmentRegister;
  readonly tr: SegmentRegister;
  readonly gdt: SegmentRegister;
  readonly idt: SegmentRegister;
  /** cr0 to cr4; cr1 does not exist. */
  readonly control: readonly bigint[];
  readonly kernelGsBase: bigint;
}

/**
 * Decodes the registers of a stream's x86 vCPUs by its vmdesc, in the order of their numbers; those that it does not
 * describe are left out.
 *
 * @see vmstate_x86_cpu in QEMU's target/i386/machine.c
 */
export function x86Registers(model: StreamModel): readonly X86Registers[] {
  const found: { readonly id: number; readonly registers: X86Registers }[] = [];
  for (const { device, state } of decodeDevices(model)) {
    if (device.idstr !== 'cpu' || state === undefined) continue;
    const registers = registersIn(state);
    if (registers !== undefined) found.push({ id: device.instanceId, registers });
  }
  return found.sort((a, b) => a.id - b.id).map(({ registers }) => registers);
}

function registersIn(state: readonly StateNode[]): X86Registers | undefined {
  const nodes = new Map(state.map((node) => [node.name, node]));
  const number = (name: string): bigint => wordOf(nodes.get(name));
  const general = nodes.get('env.regs')?.children;
  const segments = nodes.get('env.segs')?.children;
  if (general?.length !== 16 || segments?.length !== 6) return undefined;
  if (!nodes.has('env.eip') || !nodes.has('env.eflags')) return undefined;
  return {
    general: general.map(wordOf),
    rip: number('env.eip'),
    rflags: number('env.eflags'),
    segments: segments.map(segmentIn),
    ldt: segmentIn(nodes.get('env.ldt')),
    tr: segmentIn(nodes.get('env.tr')),
    gdt: segmentIn(nodes.get('env.gdt')),
    idt: segmentIn(nodes.get('env.idt')),
    control: [0, 1, 2, 3, 4].map((index) => number(`env.cr[${index}]`)),
    kernelGsBase: number('env.kernelgsbase'),
  };
}

function segmentIn(node: StateNode | undefined): SegmentRegister {
  const field = (name: string): bigint =>
    wordOf(node?.children?.find((child) => child.name === name));
  return {
    selector: Number(field('selector')),
    base: field('base'),
    limit: Number(field('limit')),
    flags: Number(field('flags')),
  };
}

function wordOf(node: StateNode | undefined): bigint {
  const value = node?.value;
  return typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : 0n;
}
