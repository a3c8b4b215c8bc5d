import type { BitmapMapping } from './bitmap-mapping.ts';
import type { Capabilities } from './capabilities.ts';
import type { Clock } from './clock.ts';
import type { GuestPort } from './guest-port.ts';
import type { MigrationStatus } from './migration-info.ts';
import type { MultifdReceivePort } from './multifd-port.ts';
import type { PageFile } from './page-file.ts';
import type { OpenChannel } from './source-options.ts';
import type { Transport } from './transport.ts';

/** What a destination's migration needs. */
export interface DestinationOptions {
  /** The guest, created to receive: its vCPUs stand still and all its pages are missing. */
  readonly guest: GuestPort;
  /** A connection from the source, owned by the migration from now on. */
  readonly transport: Transport;
  /** Waits for the source's next connection; `postcopy-preempt` needs it. */
  readonly acceptChannel?: OpenChannel;
  /** With the capability `multifd`: the channels in the order of their ids, owned by the migration from now on. */
  readonly multifd?: readonly MultifdReceivePort[];
  /** With `mapped-ram`: opens what reads the pages, owned by the migration from then on; by default the connection does. */
  readonly openPageFile?: () => Promise<PageFile | undefined>;
  readonly clock: Clock;
  readonly capabilities: Capabilities;
  /** Whether the guest runs after its arrival when it ran before (QEMU without `-S`); default true. */
  readonly autostart?: boolean;
  /** The parameter `block-bitmap-mapping`. */
  readonly bitmapMapping?: BitmapMapping | undefined;
  /** Is told what does not arrive, in a sentence: it fails nothing. */
  readonly onWarning?: (message: string) => void;
  readonly onStatus?: (status: MigrationStatus) => void;
}
