import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import {
  MultifdReceiveChannel,
  type MultifdReceivePort,
  MultifdSendChannel,
  type MultifdSendPort,
  withPrefix,
} from '@wherry/migration';
import { GuestRam, PacketPages } from '@wherry/page-engine';
import { connect, createPacketCompressor, createPacketDecompressor } from '@wherry/transport';
import {
  type ChannelCall,
  type ChannelInit,
  type ChannelReply,
  fromPlainError,
  toPlainError,
} from './multifd-messages.ts';

// The whole of a multifd channel's thread: its socket, its packets, and guest memory as it is.

async function openChannel(init: ChannelInit): Promise<MultifdSendPort | MultifdReceivePort> {
  const { id, compression } = init;
  const ram = await GuestRam.attach(init.ram);
  if (init.role === 'send') {
    const { uuid, findZeroPages, level } = init;
    const transport = await connect(init.uri);
    const compressor =
      compression === 'none' ? undefined : createPacketCompressor({ method: compression, level });
    return new MultifdSendChannel({
      ...{ ram, id, transport, uuid, findZeroPages, compression, compressor },
    });
  }
  const transport = withPrefix(await connect({ kind: 'fd', fd: init.fd }), init.unread);
  const decompressor = compression === 'none' ? undefined : createPacketDecompressor(compression);
  const pages = new PacketPages(ram, id);
  return new MultifdReceiveChannel({ pages, id, transport, compression, decompressor });
}

async function serve(port: MessagePort): Promise<void> {
  const init = workerData as ChannelInit;
  const answer = async (call: number, run: () => Promise<unknown>): Promise<void> => {
    let reply: ChannelReply;
    try {
      reply = { call, result: await run() };
    } catch (error) {
      reply = { call, error: toPlainError(error, init.id) };
    }
    port.postMessage(reply);
  };
  let channel: MultifdSendPort | MultifdReceivePort;
  await answer(0, async () => {
    channel = await openChannel(init);
    port.on('message', ({ call, name, args }: ChannelCall) => {
      const method = Reflect.get(channel, name) as (...args: unknown[]) => Promise<unknown>;
      const given = name === 'destroy' ? [fromPlainError(args[0])] : [...args];
      void answer(call, () => method.apply(channel, given));
    });
  });
}

await serve(parentPort!);
