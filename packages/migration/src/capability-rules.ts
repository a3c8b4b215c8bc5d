import { MigrationError } from './migration-error.ts';

/** What a host is in a migration. */
export type MigrationRole = 'source' | 'destination';

interface Rule {
  readonly isBroken: (on: (capability: string) => boolean, role: MigrationRole) => boolean;
  /** QEMU's words. */
  readonly message: string;
}

/** What does not go together, in the order in which QEMU looks. */
const RULES: readonly Rule[] = [
  {
    isBroken: (on) => on('mapped-ram') && on('xbzrle'),
    message: 'Mapped-ram migration is incompatible with xbzrle',
  },
  {
    // Releases after 11.1 load a file so: it goes on being read while the guest runs.
    isBroken: (on, role) => on('mapped-ram') && on('postcopy-ram') && role === 'source',
    message: 'Mapped-ram migration is incompatible with postcopy',
  },
];

/**
 * Refuses capabilities that do not go together.
 *
 * @throws MigrationError `CAPABILITY_CONFLICT`
 * @see migrate_caps_check in QEMU's migration/options.c
 */
export function checkCapabilities(capabilities: ReadonlySet<string>, role: MigrationRole): void {
  const broken = RULES.find(({ isBroken }) => isBroken((name) => capabilities.has(name), role));
  if (broken !== undefined) throw new MigrationError('CAPABILITY_CONFLICT', broken.message);
}
