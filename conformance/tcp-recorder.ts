import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** Both directions of a recorded connection. */
export interface Recording {
  /** What the side that connected sent. */
  readonly forward: Uint8Array;
  /** What it received; empty when nothing was relayed. */
  readonly backward: Uint8Array;
}

/**
 * Records a migration's TCP connection to 127.0.0.1: alone, taking all that comes, or in the middle,
 * relaying both directions to another port. Of several connections it keeps the one that carries the
 * stream.
 */
export class TcpRecorder implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #port = 0;
  #connectionsLeft: number;
  #openConnections = 0;
  #main: Recording | undefined;
  readonly #finished = Promise.withResolvers<Recording>();

  private constructor(targetPort: number | undefined, connections: number) {
    this.#connectionsLeft = connections;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      if (--this.#connectionsLeft === 0) this.#server.close();
      this.#record(socket, targetPort);
    });
    this.#finished.promise.catch(() => {}); // may fail before anyone waits for it
  }

  /** Starts to listen on a free port for this many connections. */
  static async listen(targetPort?: number, connections = 1): Promise<TcpRecorder> {
    const recorder = new TcpRecorder(targetPort, connections);
    recorder.#server.listen(0, '127.0.0.1');
    await once(recorder.#server, 'listening');
    recorder.#port = (recorder.#server.address() as AddressInfo).port;
    return recorder;
  }

  /** The migration URI that leads here. */
  get uri(): string {
    return `tcp:127.0.0.1:${this.#port}`;
  }

  /** Resolves when both sides have ended every connection. */
  get finished(): Promise<Recording> {
    return this.#finished.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #record(source: Socket, targetPort: number | undefined): void {
    const forward: Buffer[] = [];
    const backward: Buffer[] = [];
    const sockets = [source];
    source.on('data', (chunk) => forward.push(chunk));
    if (targetPort === undefined) {
      source.once('end', () => source.end());
    } else {
      const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true });
      target.on('data', (chunk) => backward.push(chunk));
      source.pipe(target);
      target.pipe(source);
      sockets.push(target);
    }
    const isOnly = this.#connectionsLeft === 0 && this.#openConnections === 0;
    let open = sockets.length;
    this.#openConnections++;
    for (const socket of sockets) {
      this.#sockets.add(socket);
      socket.on('error', (error) => this.#finished.reject(error));
      socket.once('close', () => {
        if (--open > 0) return;
        const first = Buffer.concat(forward);
        if (isOnly || first.toString('latin1', 0, 4) === 'QEVM') {
          this.#main = { forward: first, backward: Buffer.concat(backward) };
        }
        if (--this.#openConnections > 0 || this.#connectionsLeft > 0) return;
        if (this.#main !== undefined) this.#finished.resolve(this.#main);
        else this.#finished.reject(new Error('no connection carried a migration stream'));
      });
    }
  }
}
