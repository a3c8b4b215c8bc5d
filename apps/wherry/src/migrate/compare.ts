import { ALL_PAGES, type Peer } from './peer.ts';

/** One thing compared at hand-over. */
export interface ComparedItem {
  readonly name: string;
  readonly equal: boolean;
  /** What was compared: pages of a block, bytes of a device. */
  readonly extent: string;
}

/** RAM and devices as the source gave them and as the destination got them. */
export interface Comparison {
  readonly blocks: readonly ComparedItem[];
  readonly devices: readonly ComparedItem[];
  readonly equal: boolean;
}

/**
 * Compares every RAM block and device at hand-over. Pages that the guest has written at the
 * destination since cannot be compared any more: its vCPUs checked those when they wrote them.
 */
export async function compareHandover(source: Peer, destination: Peer): Promise<Comparison> {
  const there = await destination.client.execute('x-wherry-handover', {}, ALL_PAGES);
  const masks = there.blocks.map(({ name, dirty }) => ({ name, dirty }));
  const here = await source.client.execute('x-wherry-handover', { blocks: masks }, ALL_PAGES);
  const blocks = here.blocks.map((block): ComparedItem => {
    const other = there.blocks.find(({ name }) => name === block.name);
    return {
      name: block.name,
      equal: other?.checksum === block.checksum && other.compared === block.compared,
      extent: `${block.compared} of ${block.pages} pages`,
    };
  });
  const names = new Set([...here.devices, ...there.devices].map((d) => key(d)));
  const devices = [...names].map((name): ComparedItem => {
    const sent = here.devices.find((d) => key(d) === name);
    const loaded = there.devices.find((d) => key(d) === name);
    return {
      name,
      equal: sent !== undefined && sent.digest === loaded?.digest,
      extent: `${sent?.bytes ?? 0} bytes`,
    };
  });
  return { blocks, devices, equal: [...blocks, ...devices].every(({ equal }) => equal) };
}

function key(device: { readonly idstr: string; readonly 'instance-id': number | bigint }): string {
  const instance = Number(device['instance-id']);
  return instance === 0 ? device.idstr : `${device.idstr} ${instance}`;
}
