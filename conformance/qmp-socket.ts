import { connect, type Socket } from 'node:net';
import type { QmpChannel } from '@wherry/qmp';

/** Connects to a QMP server's UNIX socket. @throws the socket's error */
export async function connectQmpSocket(path: string): Promise<QmpChannel> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve();
    });
  });
  return channelOver(socket);
}

function channelOver(socket: Socket): QmpChannel {
  let failure: Error | undefined;
  socket.on('error', (error) => {
    failure = error;
  });
  return {
    send: (text) => {
      if (socket.writable) socket.write(text);
    },
    onData: (listener) => {
      socket.on('data', listener);
    },
    onClose: (listener) => {
      socket.once('close', () => listener(failure));
    },
    close: () => {
      socket.end();
    },
  };
}
