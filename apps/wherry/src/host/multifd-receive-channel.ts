import { MultifdReceiveChannel, type MultifdReceiveOptions } from '@wherry/migration';
import { createPacketDecompressor } from '@wherry/transport';

/** Makes the receiving end of a multifd channel, with what unpacks its packets. */
export function receiveChannel(
  options: Omit<MultifdReceiveOptions, 'decompressor'>,
): MultifdReceiveChannel {
  const { compression } = options;
  const decompressor = compression === 'none' ? undefined : createPacketDecompressor(compression);
  return new MultifdReceiveChannel({ ...options, decompressor });
}
