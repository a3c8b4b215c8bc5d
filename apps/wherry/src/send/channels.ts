import {
  MigrationError,
  type MultifdCompression,
  MultifdSendChannel,
  type StoredChannels,
  type StoredGuestPort,
  type StoredList,
  StoredPackets,
} from '@wherry/migration';
import { createPacketCompressor, TransportError } from '@wherry/transport';
import { InvalidArgumentError } from 'commander';
import { CliError } from '../cli-error.ts';
import type { SendTarget } from './target.ts';

const NO_UUID = '00000000-0000-0000-0000-000000000000';
/** What QEMU has as multifd-zlib-level and multifd-zstd-level unless told. */
const LEVEL = 1;

/** The channels that the command line asks for. */
export interface ChannelOptions {
  readonly multifd?: number;
  readonly multifdCompression: MultifdCompression;
  readonly zeroPageDetection?: StoredChannels['zeroPageDetection'];
  readonly uuid?: string;
}

/** @throws InvalidArgumentError */
export function parseChannelCount(text: string): number {
  if (/^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 255) return Number(text);
  throw new InvalidArgumentError('There are 1 to 255 channels.');
}

/** @throws InvalidArgumentError */
export function parseUuid(text: string): string {
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text;
  throw new InvalidArgumentError(`A UUID is written as ${NO_UUID}.`);
}

/** Says at once what cannot be done with channels. @throws CliError 2 */
export function checkChannels(target: SendTarget, options: ChannelOptions): void {
  if (options.multifd !== undefined) {
    if (target.takesChannels) return;
    throw new CliError(`Multifd needs tcp: or unix:, not ${target.text}`, 2);
  }
  const { multifdCompression, zeroPageDetection, uuid } = options;
  const idle =
    (multifdCompression !== 'none' && '--multifd-compression') ||
    (zeroPageDetection !== undefined && '--zero-page-detection') ||
    (uuid !== undefined && '--uuid');
  if (idle) throw new CliError(`${idle} is for multifd: say how many channels with --multifd`, 2);
}

/**
 * Opens the channels of multifd, once the main connection is there.
 *
 * @returns undefined where none are asked for
 * @throws MigrationError `CONNECTION_LOST` naming the channel that could not connect; none is left then
 */
export async function openChannels(
  target: SendTarget,
  guest: StoredGuestPort,
  options: ChannelOptions,
  signal: AbortSignal,
): Promise<StoredChannels | undefined> {
  const { multifd: count, multifdCompression: compression, uuid = uuidOf(guest) } = options;
  if (count === undefined) return undefined;
  const ports: MultifdSendChannel<StoredList>[] = [];
  try {
    for (let id = 0; id < count; id++) {
      const transport = await target.connect(signal);
      ports.push(
        new MultifdSendChannel({
          ...{ pages: new StoredPackets(guest), id, transport, uuid, compression },
          findZeroPages: true,
          compressor:
            compression === 'none'
              ? undefined
              : createPacketCompressor({ method: compression, level: LEVEL }),
        }),
      );
    }
  } catch (error) {
    await Promise.all(ports.map((port) => port.destroy(error as Error)));
    throw error instanceof TransportError ? refused(ports.length, error) : error;
  }
  return { ports, zeroPageDetection: options.zeroPageDetection };
}

function uuidOf({ configuration }: StoredGuestPort): string {
  const bytes = configuration?.uuid;
  return bytes === undefined ? NO_UUID : Buffer.from(bytes).toString('hex');
}

function refused(id: number, cause: TransportError): MigrationError {
  return new MigrationError('CONNECTION_LOST', `multifd channel ${id}: it cannot connect`, {
    found: cause.what,
    likely: 'The destination has multifd off, or fewer multifd-channels: set both as here',
    cause,
  });
}
