import { type Capabilities, MigrationError } from '@wherry/migration';
import type { MigrationUri } from '@wherry/transport';
import { usesChannels } from './multifd-channels.ts';

/**
 * Refuses a URI that gives one connection where the capabilities need several.
 *
 * @throws MigrationError `CAPABILITY_CONFLICT`, with QEMU's text
 * @see migration_channels_and_transport_compatible in QEMU's migration/migration.c
 */
export function checkChannels(capabilities: Capabilities, { kind }: MigrationUri): void {
  const needsChannels = capabilities.has('postcopy-preempt') || usesChannels(capabilities);
  if (!needsChannels || kind === 'tcp' || kind === 'unix') return;
  throw new MigrationError(
    'CAPABILITY_CONFLICT',
    'Migration requires multi-channel URIs (e.g. tcp)',
  );
}
