import { innerStates, type Vmdesc, type VmdescDevice, type VmdescState } from '../vmdesc.ts';
import type { GroupLayout } from './layout.ts';
import { VmdescCompiler } from './layout-of-vmdesc.ts';
import { type Candidate, decodeByCandidates, type Schema } from './schema.ts';

/**
 * Makes a schema of the vmdesc of another stream of the same machine. Subsections may differ from those
 * that it had, as long as it describes them somewhere; so may the lengths of arrays and buffers, where
 * one reading alone fills the section.
 */
export function schemaFromVmdesc(vmdesc: Vmdesc): Schema {
  const subsections = new Map<string, Map<string, VmdescState>>();
  for (const device of vmdesc.devices) collectSubsections(device, subsections);
  const find = (description: string, name: string): VmdescState | undefined =>
    subsections.get(description)?.get(name);
  const names = new Set([...subsections.values()].flatMap((known) => [...known.keys()]));
  const knowsSubsection = (name: string): boolean => names.has(name);
  const layouts = new Map<VmdescDevice, GroupLayout>();

  function exactLayout(device: VmdescDevice): GroupLayout {
    let exact = layouts.get(device);
    if (exact === undefined) {
      exact = new VmdescCompiler({ lengths: 'none', subsection: find }).group('section', device);
      layouts.set(device, exact);
    }
    return exact;
  }

  function openLayout(
    device: VmdescDevice,
    lengths: 'pointers' | 'lengths',
  ): GroupLayout | undefined {
    const compiler = new VmdescCompiler({ lengths, subsection: find });
    const layout = compiler.group('section', device);
    return compiler.hasChoice ? layout : undefined;
  }

  return {
    decode(section, body, offset = 0) {
      const devices = devicesFor(vmdesc, section.idstr, section.instanceId);
      const candidates = devices.map(
        (device): Candidate => ({
          name: device.vmsd_name ?? device.name,
          knowsSubsection,
          exact: exactLayout(device),
          openLayouts: [() => openLayout(device, 'pointers'), () => openLayout(device, 'lengths')],
        }),
      );
      const why = 'The schema is of a machine that lacks this device';
      return decodeByCandidates(section, candidates, body, offset, why);
    },
  };
}

/** Gives the entries that may describe a section: its own, or those of the same device elsewhere. */
function devicesFor({ devices }: Vmdesc, idstr: string, instanceId: number): VmdescDevice[] {
  const sameName = devices.filter(({ name }) => name === idstr);
  const own = sameName.filter(({ instance_id: instance }) => instance === instanceId);
  if (own.length > 0) return own;
  if (sameName.length > 0) return sameName;
  return devices.filter(
    ({ vmsd_name: name }) => name !== undefined && (idstr === name || idstr.endsWith(`/${name}`)),
  );
}

function collectSubsections(
  state: Partial<VmdescState>,
  found: Map<string, Map<string, VmdescState>>,
): void {
  const { vmsd_name: name = '', fields = [], subsections = [] } = state;
  for (const subsection of subsections) {
    const known = found.get(name) ?? new Map<string, VmdescState>();
    found.set(name, known);
    if (!known.has(subsection.vmsd_name)) known.set(subsection.vmsd_name, subsection);
    collectSubsections(subsection, found);
  }
  for (const field of fields) {
    if (field.struct !== undefined) collectSubsections(field.struct, found);
    for (const inner of innerStates(field)) collectSubsections(inner, found);
  }
}
