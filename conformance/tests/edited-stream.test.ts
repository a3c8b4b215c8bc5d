import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { type StreamModel, StreamWalk } from '@wherry/snapshot';
import {
  addSubsection,
  decodeWithVmdesc,
  describeState,
  dropSubsection,
  encodeState,
  findState,
  formatVmdesc,
  type StateNode,
  setState,
  type VmdescDevice,
} from '@wherry/vmstate';
import { describe, expect, vi } from 'vitest';
import { loadFixture } from '../fixtures.ts';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { recordCases } from '../record-cases.ts';

type Edit = (nodes: readonly StateNode[]) => readonly StateNode[];

function walk(stream: Uint8Array): StreamModel {
  const streamWalk = new StreamWalk();
  const reader = ByteReader.over(stream);
  runParser(streamWalk.walk(reader), reader);
  return streamWalk.model;
}

function entryOf(model: StreamModel, idstr: string): VmdescDevice {
  return model.vmdesc!.value!.devices.find(({ name }) => name === idstr)!;
}

function decode(model: StreamModel, idstr: string): readonly StateNode[] {
  const { body, bodyOffset } = model.devices.find((device) => device.idstr === idstr)!;
  return decodeWithVmdesc(entryOf(model, idstr), body!, bodyOffset);
}

/** Writes a stream again with the state of some devices edited, and its vmdesc with them. */
function edited(stream: Uint8Array, edits: Readonly<Record<string, Edit>>): Uint8Array {
  const model = walk(stream);
  const writer = new ByteWriter();
  const { value, offset: vmdescOffset } = model.vmdesc!;
  const devices = [...value!.devices];
  let copied = 0;
  for (const { idstr, bodyOffset, bodyLengthBytes } of model.devices) {
    const edit = edits[idstr];
    if (edit === undefined) continue;
    const nodes = edit(decode(model, idstr));
    writer.raw(stream.subarray(copied, bodyOffset)).raw(encodeState(nodes));
    copied = bodyOffset + bodyLengthBytes;
    const entry = entryOf(model, idstr);
    devices[devices.indexOf(entry)] = describeState(entry, nodes);
  }
  const text = formatVmdesc({ ...value!, devices });
  return writer
    .raw(stream.subarray(copied, vmdescOffset))
    .u8(6)
    .u32(text.length)
    .text(text)
    .finish();
}

const CMOS_BYTE = 0x60;
const interruptLevel: StateNode = {
  name: 'hpet/rtc_irq_level',
  type: 'subsection',
  offset: 0,
  lengthBytes: 0,
  description: { name: 'hpet/rtc_irq_level', version: 1 },
  children: [{ name: 'rtc_irq_level', type: 'uint8', offset: 0, lengthBytes: 1, value: 1 }],
};

describe('a stream whose device state was edited', () => {
  for (const release of releases) {
    peerTest(release, 'is loaded, and its state comes back', async (peer) => {
      const { stream } = loadFixture(release, 'precopy');
      const names = decode(walk(stream), 'hpet').map(({ name }) => name);
      expect(names).not.toContain(interruptLevel.name);
      const made = edited(stream, {
        mc146818rtc(nodes) {
          const cmos = Uint8Array.from(findState(nodes, 'cmos_data').value as Uint8Array);
          expect(cmos[CMOS_BYTE]).toBe(0);
          cmos[CMOS_BYTE] = 0xa5;
          return setState(nodes, 'cmos_data', cmos);
        },
        hpet: (nodes) => addSubsection(nodes, '', interruptLevel),
        fw_cfg: (nodes) => dropSubsection(nodes, 'fw_cfg/acpi_mr'),
      });
      expect(made.length).not.toBe(stream.length);

      const { machine, args, guest } = recordCases.find(({ name }) => name === 'precopy')!;
      await using qemu = await QemuProcess.start(peer, { machine, args, guest, incoming: 'defer' });
      writeFileSync(join(qemu.directory, 'edited.qevm'), made);
      await qemu.listen('exec:cat edited.qevm');
      await qemu.waitForMigration();
      await qemu.migrate('exec:cat > again.qevm');
      // QEMU is done before `cat` is: read until the whole stream is there.
      const [cmos, interrupt] = await vi.waitFor(() => {
        const again = walk(readFileSync(join(qemu.directory, 'again.qevm')));
        return [decode(again, 'mc146818rtc'), decode(again, 'hpet')];
      });
      const cmosData = findState(cmos!, 'cmos_data').value as Uint8Array;
      expect(cmosData[CMOS_BYTE]).toBe(0xa5);
      expect(findState(interrupt!, 'hpet/rtc_irq_level.rtc_irq_level').value).toBe(1);
    });
  }
});
