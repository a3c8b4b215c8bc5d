import { createConnection, type Socket } from 'node:net';
import type { ByteChannel } from './replay.ts';

/** Wraps a socket as a channel. */
export function socketChannel(socket: Socket): ByteChannel {
  let lastError: Error | undefined;
  socket.on('error', (error) => {
    lastError = error;
  });
  return {
    send: (text) => void socket.write(text),
    sendBytes: (bytes) => void socket.write(bytes),
    onData: (listener) => void socket.on('data', listener),
    onClose: (listener) => void socket.on('close', () => listener(lastError)),
    close: () => void socket.end(),
    abort: () => void socket.destroy(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    get bufferedBytes() {
      return socket.writableLength;
    },
  };
}

/** Connects to a unix socket. */
export function connectUnix(path: string): ByteChannel {
  return socketChannel(createConnection(path));
}
