import { type GuestRam, PacketPages } from '@wherry/page-engine';
import {
  checkMultifdInit,
  MultifdReceiveChannel,
  type MultifdReceivePort,
  type Transport,
} from '../src/index.ts';

/** Of a guest without one. */
export const ZERO_UUID = '00000000-0000-0000-0000-000000000000';

/** Receives through a connection that begins with its first packet, on this thread. */
export function receiveChannel(
  ram: GuestRam,
  transport: Transport,
  channels: number,
): MultifdReceivePort {
  const begin = async (): Promise<MultifdReceiveChannel> => {
    const bytes = new Uint8Array(64);
    for (let have = 0; have < 64; ) have += await transport.read(bytes.subarray(have));
    const id = checkMultifdInit(bytes, { uuid: ZERO_UUID, channels });
    return new MultifdReceiveChannel({
      ...{ pages: new PacketPages(ram, id), id, transport, compression: 'none' },
    });
  };
  const channel = begin();
  channel.catch(() => {});
  return {
    receive: async () => (await channel).receive(),
    destroy: async (reason) => {
      transport.destroy(reason);
      await channel.then(
        (begun) => begun.destroy(reason),
        () => {},
      );
    },
  };
}
