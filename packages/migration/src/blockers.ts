import { DeviceRegistry } from '@wherry/vmstate';
import type { GuestPort } from './guest-port.ts';
import { MigrationError } from './migration-error.ts';

type Guest = Pick<GuestPort, 'devices' | 'blockers'>;

/**
 * Tells all that keeps a guest from being migrated, in QEMU's words and order.
 *
 * @see fill_source_migration_info in QEMU's migration/migration.c
 */
export function migrationBlockers({ devices, blockers = [] }: Guest): string[] {
  const unmigratable = unmigratableDevices(devices).toReversed();
  return [...blockers, ...unmigratable.map((idstr) => `non-migratable device: ${idstr}`)];
}

/**
 * Refuses a guest that cannot be migrated. QEMU names the first blocker; this names them all.
 *
 * @throws MigrationError `BLOCKED`
 * @see migration_is_blocked in QEMU's migration/migration.c
 */
export function checkMigratable({ devices, blockers = [] }: Guest): void {
  const reasons = [
    ...unmigratableDevices(devices).map(
      (idstr) => `State blocked by non-migratable device '${idstr}'`,
    ),
    ...blockers.toReversed(),
  ];
  if (reasons.length > 0) throw new MigrationError('BLOCKED', reasons.join('; '));
}

function unmigratableDevices(devices: Guest['devices']): string[] {
  return new DeviceRegistry(devices)
    .inSectionOrder()
    .filter(({ unmigratable }) => unmigratable)
    .map(({ idstr }) => idstr);
}
