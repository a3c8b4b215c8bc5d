import { ByteWriter } from '@wherry/bytes';
import { type GuestRam, TARGET_PAGE_BYTES } from '@wherry/page-engine';
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
import type { Device, VmdescDevice } from '@wherry/vmstate';

/** Registration order makes the ids: RAM first, then the devices. */
const RAM_SECTION_ID = 1;

/** The bytes of a device's section as they crossed. */
export interface DeviceState {
  readonly idstr: string;
  readonly instanceId: number;
  readonly bytes: Uint8Array;
}

/** Writes the frames of a source's stream, in wire order, around the page records of others. */
export class SourceFrames {
  readonly #writer: ByteWriter;

  constructor(writer: ByteWriter) {
    this.#writer = writer;
  }

  /** Header and configuration. */
  begin(machineType: string): void {
    writeHeader(this.#writer);
    writeConfiguration(this.#writer, { machineType });
  }

  command(command: Command): void {
    writeCommand(this.#writer, command);
  }

  /** The START section of RAM: its list of blocks; with page sizes where postcopy needs them. */
  ramStart(ram: GuestRam, withPageSizes: boolean): void {
    writeSectionHead(this.#writer, { kind: 'start', sectionId: RAM_SECTION_ID, ...RAM_SECTION });
    const entries = ram.blocks.map(({ name, lengthBytes, hostPageBytes }) => ({
      name,
      usedBytes: lengthBytes,
      ...(withPageSizes && hostPageBytes !== TARGET_PAGE_BYTES ? { pageBytes: hostPageBytes } : {}),
    }));
    writeRamList(this.#writer, entries);
    this.ramEnd();
  }

  /** The head of a PART or END section of RAM; page records and {@link SourceFrames.ramEnd} follow. */
  ramHead(kind: 'part' | 'end'): void {
    writeSectionHead(this.#writer, { kind, sectionId: RAM_SECTION_ID });
  }

  /** The end mark and footer of a RAM section. */
  ramEnd(): void {
    writeRamWord(this.#writer, 0, RamFlag.eos);
    writeFooter(this.#writer, RAM_SECTION_ID);
  }

  /** The FULL section of every device that has something to send. */
  devices(devices: readonly Device[]): { states: DeviceState[]; vmdesc: VmdescDevice[] } {
    const states: DeviceState[] = [];
    const vmdesc: VmdescDevice[] = [];
    let sectionId = RAM_SECTION_ID;
    for (const device of devices) {
      sectionId += 1;
      if (!device.isNeeded()) continue;
      const { idstr, instanceId, version } = device;
      writeSectionHead(this.#writer, { kind: 'full', sectionId, idstr, instanceId, version });
      const start = this.#writer.length;
      vmdesc.push(device.save(this.#writer));
      states.push({ idstr, instanceId, bytes: this.#writer.bytes.slice(start) });
      writeFooter(this.#writer, sectionId);
    }
    return { states, vmdesc };
  }

  /** The end of the stream, with its description where there is one. */
  end(vmdesc?: { readonly machineType: string; readonly devices: readonly VmdescDevice[] }): void {
    this.#writer.u8(SectionType.eof);
    if (vmdesc === undefined) return;
    const configuration = {
      vmsd_name: 'configuration',
      version: 1,
      fields: [
        { name: 'len', type: 'uint32', size: 4 },
        { name: 'name', type: 'buffer', size: vmdesc.machineType.length },
      ],
    };
    const description = { configuration, page_size: TARGET_PAGE_BYTES, devices: vmdesc.devices };
    writeVmdesc(this.#writer, JSON.stringify(description));
  }
}

/** Encodes a device's section body on its own. */
export function encodeDevice(device: Device): DeviceState {
  const writer = new ByteWriter();
  device.save(writer);
  return { idstr: device.idstr, instanceId: device.instanceId, bytes: writer.finish() };
}
