import { WherryError } from '@wherry/bytes';
import type { StreamModel } from '@wherry/snapshot';
import { type Diagnosis, diagnose } from '../diagnosis.ts';
import { analyzeSection } from './analyzed-section.ts';
import { formatPythonJson, type PythonValue } from './python-json.ts';

type Description = Readonly<Record<string, unknown>>;

/** Writes a stream's vmdesc as QEMU's analyser does for `-d desc`. */
export function* formatDescription(model: StreamModel): Generator<string> {
  yield* formatPythonJson(parse(model));
  yield '\n';
}

/**
 * Writes a stream's sections as QEMU's analyser does for `-d state`.
 *
 * A section that its description does not fit is `null`; the analyser would end there.
 *
 * @param onMismatch hears of each such section
 */
export function* formatState(
  model: StreamModel,
  onMismatch: (diagnosis: Diagnosis) => void,
): Generator<string> {
  const descriptions = describe(parse(model));
  // A section id that begins twice keeps its place and has the second's state.
  const sections = new Map<number, () => readonly [name: string, value: PythonValue]>();
  const devices = new Map(model.devices.map((device) => [device.offset, device]));
  for (const item of model.items) {
    if (item.type !== 'section' || item.kind === 'part' || item.kind === 'end') continue;
    const { idstr, instanceId, sectionId, offset } = item;
    const device = devices.get(offset);
    sections.set(sectionId, () => {
      if (device?.body === undefined) return [idstr, idstr === 'ram' ? sizes(model) : ''];
      const description = descriptions.get(keyOf(idstr, instanceId)) ?? {};
      try {
        return [idstr, analyzeSection(idstr, description, device.body, device.bodyOffset)];
      } catch (error) {
        if (!(error instanceof WherryError)) throw error;
        onMismatch(diagnose(error, [idstr]));
        return [idstr, null];
      }
    });
  }
  let separator = '{\n    ';
  for (const [sectionId, analyze] of sections) {
    const [name, value] = analyze();
    yield separator;
    // A map of one member, without the braces around it.
    yield [...formatPythonJson(new Map([[`${name} (${sectionId})`, value]]))].join('').slice(6, -2);
    separator = ',\n    ';
  }
  yield sections.size === 0 ? '{}\n' : '\n}\n';
}

function sizes(model: StreamModel): PythonValue {
  const blocks = (model.ram?.blocks ?? []).map(
    ({ name, usedBytes }) => [name, `0x${usedBytes.toString(16).padStart(16, '0')}`] as const,
  );
  return new Map([['section sizes', new Map(blocks)]]);
}

function describe(vmdesc: PythonValue): ReadonlyMap<string, Description> {
  const { devices = [] } = vmdesc as { readonly devices?: readonly Description[] };
  return new Map(
    devices.map((device) => [keyOf(`${device['name']}`, Number(device['instance_id'])), device]),
  );
}

function keyOf(name: string, instanceId: number): string {
  return `${instanceId} ${name}`;
}

function parse(model: StreamModel): PythonValue {
  return JSON.parse(model.vmdesc?.text ?? '{}') as PythonValue;
}
