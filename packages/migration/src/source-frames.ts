import { ByteWriter } from '@wherry/bytes';
import {
  type GuestRam,
  type RamBlock,
  type RamDiscard,
  TARGET_PAGE_BYTES,
} from '@wherry/page-engine';
import {
  type Command,
  RAM_SECTION,
  RamFlag,
  SectionType,
  writeCommand,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamList,
  writeRamWord,
  writeSectionHead,
  writeVmdesc,
} from '@wherry/stream';
import {
  type Device,
  type DeviceRegistry,
  formatVmdesc,
  MIGRATION_PRIORITIES,
  type VmdescDevice,
  type VmdescState,
} from '@wherry/vmstate';
import { deviceError } from './device-error.ts';
import { gpaOf } from './guest-port.ts';

/** RAM registers first, then dirty bitmaps, then the devices in their order: that makes the ids. */
const RAM_SECTION_ID = 1;
/** Not 0: QEMU would take a section that goes on under it for another one's. */
export const BITMAP_SECTION_ID = 2;

/** The bytes of a device's section as they crossed. */
export interface DeviceState {
  readonly idstr: string;
  readonly instanceId: number;
  readonly bytes: Uint8Array;
}

/** Which further words the list of RAM blocks carries. */
export interface RamListWords {
  /** Guest-physical addresses, for x-ignore-shared. */
  readonly withGpas?: boolean;
  /** Writes the header of a block in a mapped-ram file. */
  readonly placeMapped?: (block: RamBlock) => void;
  /** Has the destination wait for the channels of multifd behind the list. */
  readonly flush?: boolean;
}

/** Writes the frames of a source's stream, in wire order, around the page records of others. */
export class SourceFrames {
  readonly #writer: ByteWriter;
  readonly #machineType: string;
  readonly #registry: DeviceRegistry;
  readonly #states: DeviceState[] = [];
  readonly #vmdesc: VmdescDevice[] = [];
  #capabilities: readonly string[] = [];

  constructor(writer: ByteWriter, machineType: string, registry: DeviceRegistry) {
    this.#writer = writer;
    this.#machineType = machineType;
    this.#registry = registry;
  }

  /** What was sent of the devices so far. */
  get states(): readonly DeviceState[] {
    return this.#states;
  }

  /** Goes on in another buffer, which is sent later: what it writes counts as sent here. */
  into(writer: ByteWriter): SourceFrames {
    const frames = new SourceFrames(writer, this.#machineType, this.#registry);
    frames.#capabilities = this.#capabilities;
    frames.#states.push(...this.#states);
    frames.#vmdesc.push(...this.#vmdesc);
    return frames;
  }

  /** Header and configuration. @param capabilities those that the destination has to have, too */
  begin(capabilities: readonly string[] = []): void {
    this.#capabilities = capabilities;
    writeHeader(this.#writer);
    writeConfiguration(this.#writer, { machineType: this.#machineType, capabilities });
  }

  command(command: Command): void {
    writeCommand(this.#writer, command);
  }

  /**
   * What goes out while the guest runs on and no page has been sent: the START section of RAM, and the
   * FULL sections of the early-setup devices, which go ahead of it where their priority says so.
   *
   * @throws MigrationError `DEVICE_STATE`
   * @see qemu_savevm_state_setup in QEMU's migration/savevm.c
   */
  setUp(ram: GuestRam, withPageSizes: boolean, words: RamListWords = {}): void {
    const early = this.#registry.inSectionOrder().filter(({ earlySetup }) => earlySetup);
    const isAhead = ({ priority }: Device): boolean =>
      MIGRATION_PRIORITIES.indexOf(priority) < MIGRATION_PRIORITIES.indexOf('default');
    for (const device of early.filter(isAhead)) this.#device(device);
    this.#ramStart(ram, withPageSizes, words);
    for (const device of early.filter((device) => !isAhead(device))) this.#device(device);
  }

  /** The list of blocks; with page sizes where postcopy needs them. */
  #ramStart(ram: GuestRam, withPageSizes: boolean, words: RamListWords): void {
    writeSectionHead(this.#writer, { kind: 'start', sectionId: RAM_SECTION_ID, ...RAM_SECTION });
    const entries = ram.blocks.map((block) => ({
      block,
      name: block.name,
      usedBytes: block.lengthBytes,
      ...(withPageSizes && block.hostPageBytes !== TARGET_PAGE_BYTES
        ? { pageBytes: block.hostPageBytes }
        : {}),
      ...(words.withGpas === true ? { gpa: gpaOf(ram, block) } : {}),
    }));
    const { placeMapped } = words;
    writeRamList(this.#writer, entries, placeMapped && (({ block }) => placeMapped(block)));
    if (words.flush === true) this.multifdFlush();
    this.ramEnd();
  }

  /** The head of a PART or END section of RAM; page records and {@link SourceFrames.ramEnd} follow. */
  ramHead(kind: 'part' | 'end'): void {
    writeSectionHead(this.#writer, { kind, sectionId: RAM_SECTION_ID });
  }

  /** Has the destination wait for the channels of multifd. */
  multifdFlush(): void {
    writeRamWord(this.#writer, 0, RamFlag.multifdFlush);
  }

  /** The end mark and footer of a RAM section. */
  ramEnd(): void {
    writeRamWord(this.#writer, 0, RamFlag.eos);
    writeFooter(this.#writer, RAM_SECTION_ID);
  }

  /** What the destination has to forget before it runs the guest. */
  discards(discards: Iterable<RamDiscard>, ram: GuestRam): void {
    let sent = 0;
    for (const { block, ranges } of discards) {
      sent += 1;
      this.command({
        name: 'postcopy-ram-discard',
        block: block.name,
        ranges: ranges.map(([start, length]) => ({ start, length })),
      });
    }
    // QEMU as destination refuses to run without any discard, and cannot discard no bytes of huge pages.
    const isSmall = ({ hostPageBytes }: RamBlock): boolean => hostPageBytes === TARGET_PAGE_BYTES;
    const block = ram.blocks.find(isSmall) ?? ram.blocks[0];
    if (sent === 0 && block !== undefined) {
      const ranges = [{ start: 0, length: 0 }];
      this.command({ name: 'postcopy-ram-discard', block: block.name, ranges });
    }
  }

  /**
   * The FULL sections of all devices but those of early setup.
   *
   * @throws MigrationError `DEVICE_STATE`
   */
  devices(): void {
    for (const device of this.#registry.inSectionOrder()) {
      if (!device.earlySetup) this.#device(device);
    }
  }

  /**
   * What the destination needs to run the guest, behind its length: it reads all of it before it begins.
   *
   * @param withPing has it say that it did
   */
  package(withPing: boolean): void {
    const content = new ByteWriter();
    const frames = new SourceFrames(content, this.#machineType, this.#registry);
    frames.command({ name: 'postcopy-listen' });
    frames.devices();
    this.#states.push(...frames.states);
    if (withPing) frames.command({ name: 'ping', value: 3 });
    frames.command({ name: 'postcopy-run' });
    this.command({ name: 'packaged', lengthBytes: content.length });
    this.#writer.raw(content.bytes);
  }

  #device(device: Device): void {
    const { idstr, instanceId, version } = device;
    try {
      if (!device.isNeeded()) return;
      const sectionId = BITMAP_SECTION_ID + 1 + this.#registry.devices.indexOf(device);
      writeSectionHead(this.#writer, { kind: 'full', sectionId, idstr, instanceId, version });
      const start = this.#writer.length;
      this.#vmdesc.push(device.save(this.#writer));
      this.#states.push({ idstr, instanceId, bytes: this.#writer.bytes.slice(start) });
      writeFooter(this.#writer, sectionId);
    } catch (cause) {
      throw deviceError('saving', device, cause);
    }
  }

  /** The end of the stream, with its description in precopy. */
  end(withVmdesc: boolean): void {
    this.#writer.u8(SectionType.eof);
    if (!withVmdesc) return;
    const configuration = {
      vmsd_name: 'configuration',
      version: 1,
      fields: [
        { name: 'len', type: 'uint32', size: 4 },
        { name: 'name', type: 'buffer', size: this.#machineType.length },
      ],
      ...describeCapabilities(this.#capabilities),
    };
    const description = { configuration, page_size: TARGET_PAGE_BYTES, devices: this.#vmdesc };
    writeVmdesc(this.#writer, formatVmdesc(description));
  }
}

/** Describes the configuration's subsection as QEMU does: an array of which the first element tells the size. */
function describeCapabilities([first, ...others]: readonly string[]): {
  readonly subsections?: readonly VmdescState[];
} {
  if (first === undefined) return {};
  const name = 'capabilities';
  const array = others.length === 0 ? {} : { array_len: others.length + 1 };
  return {
    subsections: [
      {
        vmsd_name: 'configuration/capabilities',
        version: 1,
        fields: [
          { name: 'caps_count', type: 'uint32', size: 4 },
          { name, ...array, type: 'capability', size: first.length + 1 },
        ],
      },
    ],
  };
}

/** Encodes a device's section body on its own. */
export function encodeDevice(device: Device): DeviceState {
  const writer = new ByteWriter();
  device.save(writer);
  return { idstr: device.idstr, instanceId: device.instanceId, bytes: writer.finish() };
}
