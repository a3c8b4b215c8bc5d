import type { Capabilities } from './capabilities.ts';
import { MigrationError } from './migration-error.ts';
import type { MigrationStatus } from './migration-info.ts';

/**
 * Refuses to drop the connection of a migration that could not go on over another one.
 *
 * @throws MigrationError `STATE`, with QEMU's text
 * @see qmp_migrate_pause in QEMU's migration/migration.c
 */
export function checkCanPause(status: MigrationStatus): void {
  if (status === 'postcopy-active' || status === 'postcopy-recover') return;
  throw new MigrationError(
    'STATE',
    'migrate-pause is currently only supported during postcopy-active or postcopy-recover state',
  );
}

/** Makes the reason of a connection that is dropped on demand. */
export function pausedByUser(): MigrationError {
  return new MigrationError('PAUSED', 'Postcopy migration is paused by the user');
}

/**
 * Refuses to go on where what was lost on its way cannot be sent again.
 *
 * @throws MigrationError `STATE`, with QEMU's text
 * @see migrate_prepare in QEMU's migration/migration.c
 */
export function checkCanResume(capabilities: Capabilities): void {
  if (!capabilities.has('release-ram')) return;
  throw new MigrationError(
    'STATE',
    'Postcopy recovery cannot work when release-ram capability is set',
  );
}
