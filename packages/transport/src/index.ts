export { type ConnectOptions, connect } from './connect.ts';
export { type Listener, type ListenerOptions, listen } from './listen.ts';
export {
  type ExecUri,
  type FdUri,
  type FileUri,
  formatUri,
  type MigrationUri,
  parseUri,
  type TcpUri,
  type UnixUri,
} from './migration-uri.ts';
export {
  type Compression,
  createPacketCompressor,
  createPacketDecompressor,
} from './packet-codec.ts';
export { type GivenConnection, giveAway } from './socket-transport.ts';
export type { ConnectTls } from './tls-client.ts';
export {
  loadTlsCredentials,
  type TlsCredentials,
  type TlsCredentialsOptions,
} from './tls-credentials.ts';
export { TransportError, type TransportErrorCode } from './transport-error.ts';
export type { WaitOptions } from './waiting.ts';
