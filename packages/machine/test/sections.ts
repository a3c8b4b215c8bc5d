import { parseVmdesc, type VmdescDevice } from '@wherry/vmstate';

/** A FULL section of a recorded stream: its body, and what the stream's vmdesc says of it. */
export interface RecordedSection {
  readonly body: Uint8Array;
  readonly version: number;
  readonly vmdesc: VmdescDevice;
}

const SECTION_FULL = 0x04;
const VMDESCRIPTION = 0x06;
const FOOTER = 0x7e;

/** Finds the FULL section `idstr` of instance 0 in a whole stream. */
export function recordedSection(stream: Uint8Array, idstr: string): RecordedSection {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  let jsonAt = stream.length;
  while (
    !(
      stream[jsonAt - 5] === VMDESCRIPTION &&
      view.getUint32(jsonAt - 4) === stream.length - jsonAt &&
      stream[jsonAt] === 0x7b
    )
  ) {
    if (--jsonAt < 5) throw new Error('the stream has no vmdesc');
  }
  const vmdesc = parseVmdesc(new TextDecoder().decode(stream.subarray(jsonAt)));
  const device = vmdesc.devices.find((d) => d.name === idstr && d.instance_id === 0);
  if (device === undefined) throw new Error(`the stream has no section ${idstr}`);

  const name = new TextEncoder().encode(idstr);
  for (let at = 5; at < jsonAt; at++) {
    if (stream[at] !== name.length || stream[at - 5] !== SECTION_FULL) continue;
    if (!name.every((byte, i) => stream[at + 1 + i] === byte)) continue;
    const headerEnd = at + 1 + name.length + 8;
    if (view.getUint32(headerEnd - 8) !== 0) continue;
    const id = view.getUint32(at - 4);
    for (let end = headerEnd; end < jsonAt; end++) {
      if (stream[end] === FOOTER && view.getUint32(end + 1) === id) {
        const body = stream.subarray(headerEnd, end);
        return { body, version: view.getUint32(headerEnd - 4), vmdesc: device };
      }
    }
  }
  throw new Error(`section ${idstr} has no footer`);
}
