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
