import type { Capabilities } from './capabilities.ts';
import type { Clock } from './clock.ts';
import type { GuestPort } from './guest-port.ts';
import type { MigrationStatus } from './migration-info.ts';
import type { MultifdSendPort } from './multifd-port.ts';
import type { PageFile } from './page-file.ts';
import type { Parameters } from './parameters.ts';
import type { Transport } from './transport.ts';

/** Opens a connection, which belongs to the caller then; the signal gives it up. */
export type OpenChannel = (signal: AbortSignal) => Promise<Transport>;

/** What a source's migration needs. */
export interface SourceOptions {
  readonly guest: GuestPort;
  /** A connection to the destination, owned by the migration from now on. */
  readonly transport: Transport;
  /** Opens a connection more to where `transport` leads; `postcopy-preempt` needs it. */
  readonly openChannel?: OpenChannel;
  /** With the capability `multifd`: the channels in the order of their ids, owned by the migration from now on. */
  readonly multifd?: readonly MultifdSendPort[];
  /** With `mapped-ram`: opens what writes the pages, owned by the migration from then on; by default the connection does. */
  readonly openPageFile?: () => Promise<PageFile | undefined>;
  readonly clock: Clock;
  readonly capabilities: Capabilities;
  /** Gives the parameters as they are now: they may change while it runs. */
  readonly parameters: () => Parameters;
  /** Is told what stays behind, in a sentence: it fails nothing. */
  readonly onWarning?: (message: string) => void;
  readonly onStatus?: (status: MigrationStatus) => void;
  /** Called at each synchronisation of the dirty log, with its number from 1. */
  readonly onPass?: (pass: number) => void;
}

/** How far the source has committed itself: what a failure means depends on it. */
export type Commitment =
  /** The guest is here, whatever happens. */
  | 'none'
  /** The destination may have all that it needs to run the guest. */
  | 'handing-over'
  /** The destination runs the guest, or is about to. */
  | 'postcopy';
