export { connect } from './connect.ts';
export { type Listener, listen } from './listen.ts';
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
export { TransportError, type TransportErrorCode } from './transport-error.ts';
export type { WaitOptions } from './waiting.ts';
