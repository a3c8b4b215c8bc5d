import { checkCapabilities, type MigrationRole } from './capability-rules.ts';
import { MigrationError } from './migration-error.ts';
import type { SourceOptions } from './source-options.ts';

/** The capabilities that this implementation honours. Others are refused by name. */
export const CAPABILITIES = [
  'xbzrle',
  'auto-converge',
  'events',
  'return-path',
  'postcopy-ram',
  'release-ram',
  'postcopy-blocktime',
  'x-ignore-shared',
  'background-snapshot',
  'postcopy-preempt',
  'mapped-ram',
  'multifd',
  'dirty-bitmaps',
] as const;

/** Those that the configuration section names, for both sides have to agree, in its order. @see should_validate_capability in QEMU's migration/savevm.c */
const CONFIGURED: readonly Capability[] = ['x-ignore-shared', 'mapped-ram'];

/** Name of a capability. @see MigrationCapability in QEMU's qapi/migration.json */
export type Capability = (typeof CAPABILITIES)[number];

/** Those capabilities that are on. */
export type Capabilities = ReadonlySet<Capability>;

/**
 * Turns capabilities on and off.
 *
 * @param role what the host is, or would be, in the next migration
 * @returns the new set; `current` is not changed
 * @throws MigrationError `CAPABILITY_UNSUPPORTED` when one that is not honoured here is turned on,
 *   `CAPABILITY_CONFLICT` when two do not go together
 */
export function setCapabilities(
  current: Capabilities,
  changes: readonly { readonly capability: string; readonly state: boolean }[],
  role: MigrationRole = 'source',
): Capabilities {
  const next = new Set(current);
  for (const { capability, state } of changes) {
    const known = CAPABILITIES.find((name) => name === capability);
    if (known === undefined) {
      if (!state) continue; // it is off already
      throw new MigrationError(
        'CAPABILITY_UNSUPPORTED',
        `Capability '${capability}' is not supported by this host`,
        { expected: CAPABILITIES.join(', ') },
      );
    }
    if (state) next.add(known);
    else next.delete(known);
  }
  checkCapabilities(next, role);
  return next;
}

/**
 * Refuses capabilities that a guest or its connection was not made for.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED`
 */
export function checkSupported(options: SourceOptions): void {
  const { capabilities, guest, openChannel, multifd } = options;
  checkHasChannels(capabilities, multifd);
  const { ram, setThrottle } = guest;
  const refuse = (capability: Capability, need: string, likely: string): never => {
    throw new MigrationError('CAPABILITY_UNSUPPORTED', `Capability '${capability}' needs ${need}`, {
      likely,
    });
  };
  if (capabilities.has('xbzrle') && ram.plan.options.xbzrleCacheBytes === 0) {
    refuse(
      'xbzrle',
      'a guest memory with room for a cache',
      'The guest memory was made without xbzrleCacheBytes',
    );
  }
  if (capabilities.has('auto-converge') && setThrottle === undefined) {
    refuse(
      'auto-converge',
      'a guest whose vCPUs can be slowed down',
      'The guest has no setThrottle',
    );
  }
  if (capabilities.has('postcopy-preempt') && openChannel === undefined) {
    refuse('postcopy-preempt', 'a connection more', 'The migration was made without openChannel');
  }
}

/**
 * Refuses a migration that has channels without the capability `multifd`, or the other way round.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED`
 */
export function checkHasChannels(capabilities: Capabilities, channels: unknown): void {
  const needsChannels = capabilities.has('multifd') && !capabilities.has('mapped-ram');
  if (needsChannels === (channels !== undefined)) return;
  throw new MigrationError(
    'CAPABILITY_UNSUPPORTED',
    "Capability 'multifd' and channels go together",
    { expected: 'both or neither', likely: 'The option multifd was left out, or is there in vain' },
  );
}

/** Whether a source with these capabilities opens a return path. */
export function usesReturnPath(capabilities: Capabilities): boolean {
  return capabilities.has('return-path') || capabilities.has('postcopy-ram');
}

/** Whether a migration with these capabilities can switch to postcopy. @see migrate_postcopy in QEMU's migration/options.c */
export function usesPostcopy(capabilities: Capabilities): boolean {
  return capabilities.has('postcopy-ram') || capabilities.has('dirty-bitmaps');
}

/** Lists the capabilities that are on and that the configuration section names, in its order. */
export function configuredCapabilities(capabilities: Capabilities): Capability[] {
  return CONFIGURED.filter((capability) => capabilities.has(capability));
}

/**
 * Holds the capabilities that a source named against this side's.
 *
 * @throws MigrationError `CAPABILITY_MISMATCH`, with QEMU's text
 * @see configuration_validate_capabilities in QEMU's migration/savevm.c
 */
export function checkConfiguredCapabilities(
  received: readonly string[],
  capabilities: Capabilities,
): void {
  const own = configuredCapabilities(capabilities) as readonly string[];
  const state = (isOn: boolean): string => (isOn ? 'on' : 'off');
  for (const capability of new Set([...received, ...own])) {
    const isOwn = own.includes(capability);
    if (isOwn === received.includes(capability)) continue;
    throw new MigrationError(
      'CAPABILITY_MISMATCH',
      `Capability ${capability} is ${state(isOwn)}, but received capability is ${state(!isOwn)}`,
      { path: ['configuration'], likely: 'Set the same capabilities on both sides' },
    );
  }
}
