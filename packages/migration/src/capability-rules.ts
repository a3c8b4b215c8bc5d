import { MigrationError } from './migration-error.ts';

/** What a host is in a migration. */
export type MigrationRole = 'source' | 'destination';

/** Tells in QEMU's words what does not go together, if anything. */
type Rule = (on: (capability: string) => boolean, role: MigrationRole) => string | undefined;

/** What needs the guest to stand still at the end, or the destination to answer. @see check_caps_background_snapshot in QEMU's migration/options.c */
const NOT_WITH_SNAPSHOT = [
  'postcopy-ram',
  'dirty-bitmaps',
  'postcopy-blocktime',
  'late-block-activate',
  'return-path',
  'multifd',
  'pause-before-switchover',
  'auto-converge',
  'release-ram',
  'rdma-pin-all',
  'xbzrle',
  'x-colo',
  'validate-uuid',
  'zero-copy-send',
];

/** In the order in which QEMU looks. */
const RULES: readonly Rule[] = [
  (on) =>
    on('postcopy-ram') && on('x-ignore-shared')
      ? 'Postcopy is not compatible with ignore-shared'
      : undefined,
  // Releases from 10.1 on allow it.
  (on) =>
    on('postcopy-ram') && on('multifd') ? 'Postcopy is not yet compatible with multifd' : undefined,
  (on) => {
    const other = on('background-snapshot') ? NOT_WITH_SNAPSHOT.find(on) : undefined;
    return other && `Background-snapshot is not compatible with ${other}`;
  },
  (on) => (on('multifd') && on('xbzrle') ? 'Multifd is not compatible with xbzrle' : undefined),
  (on) =>
    on('postcopy-preempt') && !on('postcopy-ram')
      ? 'Postcopy preempt requires postcopy-ram'
      : undefined,
  (on) =>
    on('mapped-ram') && on('xbzrle')
      ? 'Mapped-ram migration is incompatible with xbzrle'
      : undefined,
  // Releases after 11.1 load a file so: it goes on being read while the guest runs.
  (on, role) =>
    on('mapped-ram') && on('postcopy-ram') && role === 'source'
      ? 'Mapped-ram migration is incompatible with postcopy'
      : undefined,
];

/**
 * Refuses capabilities that do not go together.
 *
 * @throws MigrationError `CAPABILITY_CONFLICT`
 * @see migrate_caps_check in QEMU's migration/options.c
 */
export function checkCapabilities(capabilities: ReadonlySet<string>, role: MigrationRole): void {
  for (const rule of RULES) {
    const message = rule((name) => capabilities.has(name), role);
    if (message !== undefined) throw new MigrationError('CAPABILITY_CONFLICT', message);
  }
}
