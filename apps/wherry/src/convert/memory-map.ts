import { CliError } from '../cli-error.ts';

/** A stretch of a RAM block, and where the guest has it. */
export interface MemorySegment {
  /** Index in the guest's list of RAM blocks. */
  readonly block: number;
  /** First byte in the block. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** Guest-physical address of the first byte. */
  readonly gpa: number;
}

/** A processor that a core file can be of. */
export type Architecture = 'x86_64' | 'aarch64' | 'riscv64';

/** Where a guest's memory is, and for which processor. */
export interface MemoryMap {
  readonly segments: readonly MemorySegment[];
  /** Absent where neither the machine nor the command line tells. */
  readonly architecture: Architecture | undefined;
}

/** One `--map`: a block, or a range of it, and its address. */
export interface MapOption {
  readonly block: string;
  readonly start: number;
  /** Absent: to the end of the block. */
  readonly end?: number;
  readonly gpa: number;
}

interface Block {
  readonly name: string;
  readonly usedBytes: number;
}

const GIB = 2 ** 30;

/** The machines whose layout is known, by their type and the name of their RAM. */
const MACHINES: readonly {
  readonly type: RegExp;
  readonly ram: string;
  readonly architecture: Architecture;
  /** Splits the RAM: gives the address of its first byte, and how much of it lies below 4 GiB. */
  readonly split: (ramBytes: number) => { readonly base: number; readonly lowBytes: number };
}[] = [
  {
    // @see pc_q35_init in QEMU's hw/i386/pc_q35.c
    type: /^(pc-)?q35/,
    ram: 'pc.ram',
    architecture: 'x86_64',
    split: (bytes) => ({ base: 0, lowBytes: bytes >= 0xb000_0000 ? 0x8000_0000 : bytes }),
  },
  {
    // @see pc_init1 in QEMU's hw/i386/pc_piix.c
    type: /^(pc$|pc-i440fx|pc-\d)/,
    ram: 'pc.ram',
    architecture: 'x86_64',
    split: (bytes) => ({ base: 0, lowBytes: bytes >= 0xe000_0000 ? 0xc000_0000 : bytes }),
  },
  {
    // @see microvm_memory_init in QEMU's hw/i386/microvm.c
    type: /^microvm/,
    ram: 'microvm.ram',
    architecture: 'x86_64',
    split: (bytes) => ({ base: 0, lowBytes: Math.min(bytes, 0xc000_0000) }),
  },
  {
    // @see base_memmap in QEMU's hw/arm/virt.c
    type: /^virt/,
    ram: 'mach-virt.ram',
    architecture: 'aarch64',
    split: (bytes) => ({ base: GIB, lowBytes: bytes }),
  },
  {
    // @see virt_memmap in QEMU's hw/riscv/virt.c
    type: /^virt/,
    ram: 'riscv_virt_board.ram',
    architecture: 'riscv64',
    split: (bytes) => ({ base: 0x8000_0000, lowBytes: bytes }),
  },
];

/**
 * Finds where a guest has its RAM: as its machine has it, or as the command line says. Below 1 MiB that is
 * the RAM of a PC, whatever its chipset lays over it.
 *
 * @param maps where the command line puts blocks; the machine's own layout counts without any
 * @throws CliError 2 when the layout is not known, or what the command line says cannot be
 */
export function memoryMap(
  machineType: string | undefined,
  blocks: readonly Block[],
  maps: readonly MapOption[],
): MemoryMap {
  const named = (name: string): number => blocks.findIndex((block) => block.name === name);
  const machine = MACHINES.find(({ type, ram }) => type.test(machineType ?? '') && named(ram) >= 0);
  const architecture = machine?.architecture;
  if (maps.length > 0) {
    const segments = maps.map((map) => segmentOf(map, blocks, named(map.block)));
    return { segments: checked(segments), architecture };
  }
  if (machine === undefined) {
    const known = blocks.map(({ name, usedBytes }) => `${name} (${usedBytes} bytes)`).join(', ');
    throw new CliError(
      `Where a machine ${machineType ?? 'of no stated type'} has its RAM is not known, or not in which block: name it with --map BLOCK=ADDRESS; the guest has ${known}`,
      2,
    );
  }
  const block = named(machine.ram);
  const { usedBytes } = blocks[block]!;
  const { base, lowBytes } = machine.split(usedBytes);
  const segments: MemorySegment[] = [{ block, offset: 0, lengthBytes: lowBytes, gpa: base }];
  if (lowBytes < usedBytes) {
    const lengthBytes = usedBytes - lowBytes;
    segments.push({ block, offset: lowBytes, lengthBytes, gpa: 4 * GIB });
  }
  return { segments, architecture };
}

function segmentOf(map: MapOption, blocks: readonly Block[], block: number): MemorySegment {
  if (block < 0) {
    const known = blocks.map(({ name }) => name).join(', ');
    throw new CliError(`The guest has no RAM block ${map.block}; it has ${known}`, 2);
  }
  const { usedBytes } = blocks[block]!;
  const { start, end = usedBytes, gpa } = map;
  if (start >= end || end > usedBytes) {
    throw new CliError(`${map.block} has ${usedBytes} bytes: there is no ${start}-${end} in it`, 2);
  }
  return { block, offset: start, lengthBytes: end - start, gpa };
}

/** Sorts segments by address. @throws CliError 2 when two overlap */
function checked(segments: readonly MemorySegment[]): readonly MemorySegment[] {
  const sorted = segments.toSorted((a, b) => a.gpa - b.gpa);
  for (const [i, { gpa, lengthBytes }] of sorted.entries()) {
    const next = sorted[i + 1];
    if (next !== undefined && gpa + lengthBytes > next.gpa) {
      throw new CliError(`Two --map overlap at address 0x${next.gpa.toString(16)}`, 2);
    }
  }
  return sorted;
}
