import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import {
  type MultifdReceivePort,
  MultifdSendChannel,
  type MultifdSendPort,
  withPrefix,
} from '@wherry/migration';
import { GuestRam, PacketPages } from '@wherry/page-engine';
import { connect, createPacketCompressor } from '@wherry/transport';
import {
  type ChannelCall,
  type ChannelInit,
  type ChannelReply,
  fromPlainError,
  toPlainError,
} from './multifd-messages.ts';
import { receiveChannel } from './multifd-receive-channel.ts';

// The whole of a multifd channel's thread: its socket, its packets, and guest memory as it is.

async function openChannel(init: ChannelInit): Promise<MultifdSendPort | MultifdReceivePort> {
  const { id, compression } = init;
  const ram = await GuestRam.attach(init.ram);
  if (init.role === 'send') {
    const { uuid, findZeroPages, level, tls } = init;
    const transport = await connect(init.uri, { tls });
    const compressor =
      compression === 'none' ? undefined : createPacketCompressor({ method: compression, level });
    return new MultifdSendChannel({
      pages: new PacketPages(ram, id),
      ...{ id, transport, uuid, findZeroPages, compression, compressor },
    });
  }
  const transport = withPrefix(await connect({ kind: 'fd', fd: init.fd }), init.unread);
  return receiveChannel({ pages: new PacketPages(ram, id), id, transport, compression });
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
