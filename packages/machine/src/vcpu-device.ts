import type { GuestRam } from '@wherry/page-engine';
import {
  bool,
  type Device,
  describe,
  field,
  type StateOf,
  struct,
  u8,
  u32,
  u64,
  VmstateError,
  validate,
  varray,
  vbuffer,
  vmstateDevice,
} from '@wherry/vmstate';
import * as at from './control-layout.ts';
import type { OwnedRange } from './page-ownership.ts';
import type { VcpuControl } from './vcpu-control.ts';
import { PAGE_LINES, UNTHROTTLED, WORKLOADS } from './vcpu-spec.ts';

const ownedRange = describe({
  name: 'wherry-vcpu-range',
  version: 1,
  fields: [
    field('block_bytes', u32),
    // A check makes the vmdesc describe each range, which are of different sizes.
    validate('a block has a name', (range: { block_bytes: number }) => range.block_bytes > 0),
    field('block', vbuffer('block_bytes')), // the block's name, UTF-8
    field('first_page', u32),
    field('pages', u32),
    field('hot_pages', u32),
    field('generation_bytes', u32),
    field('generations', vbuffer('generation_bytes')), // a big-endian u32 a page
  ],
});

const description = describe({
  name: 'wherry-vcpu',
  version: 1,
  fields: [
    field('workload', u8),
    field('pages_per_second', u32),
    field('hot_writes', u32),
    field('seed', u64),
    field('rng', u64),
    field('cursor', u32),
    field('drives', bool), // runs the drivers of the virtio devices
    field('kicks', u32), // rounds over their queues
    field('writes', u64),
    field('checks', u64),
    field('violations', u64),
    field('range_count', u32),
    field('ranges', varray(struct(ownedRange), 'range_count')),
  ],
  subsections: [
    describe({
      name: 'wherry-vcpu/changes',
      version: 1,
      needed: (state: { changed_lines: number }) => state.changed_lines !== PAGE_LINES,
      fields: [field('changed_lines', u8)], // of a page, that writes change
    }),
  ],
  preLoad: (state) => Object.assign(state, { changed_lines: PAGE_LINES }),
});

type VcpuState = StateOf<typeof description>;

/**
 * Makes the device of a vCPU: its workload, what it saw, and how often it wrote each of its pages.
 * QEMU knows no such section, so an idle vCPU sends none.
 *
 * @param others the controls of the machine's other vCPUs, whose pages this one cannot own
 */
export function vcpuDevice(
  ram: GuestRam,
  control: VcpuControl,
  others: () => readonly VcpuControl[],
): Device {
  const device = vmstateDevice<VcpuState>({
    idstr: description.name,
    instanceId: control.vcpu,
    description,
    get: () => readState(control),
    set: (state) => {
      const ranges = checkState(ram, state, others());
      writeState(control, state, ranges);
    },
  });
  return { ...device, isNeeded: () => control.active };
}

function readState(control: VcpuControl): VcpuState {
  return {
    workload: control.u32(at.WORKLOAD),
    pages_per_second: control.u32(at.PAGES_PER_SECOND),
    hot_writes: control.u32(at.HOT_WRITES),
    changed_lines: control.u32(at.CHANGED_LINES),
    seed: control.u64(at.SEED),
    rng: control.u64(at.RNG),
    cursor: control.u32(at.CURSOR),
    drives: control.drives,
    kicks: control.u32(at.KICKS),
    writes: control.u64(at.WRITES),
    checks: control.u64(at.CHECKS),
    violations: control.u64(at.VIOLATIONS),
    range_count: control.ranges.length,
    ranges: control.ranges.map((range) => {
      const block = new TextEncoder().encode(range.block.name);
      const generations = bigEndian(control.generations(range));
      return {
        block_bytes: block.length,
        block,
        first_page: range.firstPage,
        pages: range.pages,
        hot_pages: range.hotPages,
        generation_bytes: generations.length,
        generations,
      };
    }),
  };
}

function writeState(control: VcpuControl, state: VcpuState, ranges: readonly OwnedRange[]): void {
  control.setRanges(ranges);
  control.setWorkload(
    {
      workload: state.workload,
      pagesPerSecond: state.pages_per_second,
      hotWrites: state.hot_writes,
      changedLines: state.changed_lines,
    },
    state.seed,
    state.rng,
  );
  control.setDrivers(state.drives);
  control.setU32(at.CURSOR, state.cursor);
  control.setU32(at.KICKS, state.kicks);
  control.setU64(at.WRITES, state.writes);
  control.setU64(at.CHECKS, state.checks);
  control.setU64(at.VIOLATIONS, state.violations);
  let written = 0;
  for (const [i, range] of ranges.entries()) {
    const live = control.generations(range);
    const { generations } = state.ranges[i]!;
    const view = new DataView(generations.buffer, generations.byteOffset);
    for (let page = 0; page < live.length; page++) {
      const generation = view.getUint32(page * 4);
      live[page] = generation;
      if (generation !== 0) written++;
    }
  }
  control.setU32(at.PAGES_WRITTEN, written);
}

/** Checks what the stream says against this guest. @returns the pages that the vCPU owns */
function checkState(ram: GuestRam, state: VcpuState, others: readonly VcpuControl[]): OwnedRange[] {
  if (state.workload >= WORKLOADS.length) {
    throw invalid('workload', `at most ${WORKLOADS.length - 1}`, state.workload);
  }
  if (state.pages_per_second === 0) {
    throw invalid('pages_per_second', `1 to ${UNTHROTTLED}`, 0);
  }
  if (state.changed_lines === 0 || state.changed_lines > PAGE_LINES) {
    throw invalid('changed_lines', `1 to ${PAGE_LINES}`, state.changed_lines);
  }
  const taken = others.flatMap((other) => other.ranges);
  const ranges: OwnedRange[] = [];
  for (const [i, stream] of state.ranges.entries()) {
    const where = `ranges[${i}]`;
    const name = new TextDecoder().decode(stream.block);
    const block = ram.block(name);
    if (block === undefined) {
      const names = ram.blocks.map((b) => b.name).join(', ');
      throw invalid(`${where}.block`, names, JSON.stringify(name.slice(0, 40)));
    }
    const { first_page: firstPage, pages, hot_pages: hotPages } = stream;
    if (firstPage + pages > block.pageCount) {
      throw invalid(
        `${where}.pages`,
        `at most ${block.pageCount} pages in ${name}`,
        `page ${firstPage + pages - 1}`,
      );
    }
    if (stream.generation_bytes !== pages * 4) {
      throw invalid(`${where}.generation_bytes`, `${pages * 4}`, stream.generation_bytes);
    }
    if (hotPages > pages) throw invalid(`${where}.hot_pages`, `at most ${pages}`, hotPages);
    const range: OwnedRange = { block, firstPage, pages, hotPages };
    const overlap = [...taken, ...ranges].find(
      (t) =>
        t.block === block && t.firstPage < firstPage + pages && firstPage < t.firstPage + t.pages,
    );
    if (overlap !== undefined) {
      throw invalid(where, 'pages of no other vCPU', `page ${firstPage} of ${name} and on`);
    }
    ranges.push(range);
  }
  return ranges;
}

function invalid(fieldName: string, expected: string, found: string | number): VmstateError {
  return new VmstateError('VALUE_INVALID', 'A vCPU of the stream does not fit this guest', {
    expected,
    found: `${found}`,
    path: [description.name, fieldName],
    likely: 'The guest was started with other RAM blocks here: give both sides the same options',
  });
}

function bigEndian(words: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < words.length; i++) view.setUint32(i * 4, words[i]!);
  return bytes;
}
