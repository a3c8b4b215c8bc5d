import type { GuestPort } from './guest-port.ts';
import { MigrationError } from './migration-error.ts';

/** The capabilities that this implementation honours. Others are refused by name. */
export const CAPABILITIES = [
  'xbzrle',
  'auto-converge',
  'events',
  'return-path',
  'postcopy-ram',
] as const;

/** Name of a capability. @see MigrationCapability in QEMU's qapi/migration.json */
export type Capability = (typeof CAPABILITIES)[number];

/** Those capabilities that are on. */
export type Capabilities = ReadonlySet<Capability>;

/**
 * Turns capabilities on and off.
 *
 * @returns the new set; `current` is not changed
 * @throws MigrationError `CAPABILITY_UNSUPPORTED` when one that is not honoured here is turned on
 */
export function setCapabilities(
  current: Capabilities,
  changes: readonly { readonly capability: string; readonly state: boolean }[],
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
  return next;
}

/**
 * Refuses capabilities that a guest was not made for.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED`
 */
export function checkGuestSupports(
  capabilities: Capabilities,
  { ram, setThrottle }: Pick<GuestPort, 'ram' | 'setThrottle'>,
): void {
  const refuse = (capability: Capability, need: string, likely: string): never => {
    throw new MigrationError(
      'CAPABILITY_UNSUPPORTED',
      `Capability '${capability}' needs a guest ${need}`,
      { likely },
    );
  };
  if (capabilities.has('xbzrle') && ram.plan.options.xbzrleCacheBytes === 0) {
    refuse(
      'xbzrle',
      'memory with room for a cache',
      'The guest memory was made without xbzrleCacheBytes',
    );
  }
  if (capabilities.has('auto-converge') && setThrottle === undefined) {
    refuse('auto-converge', 'whose vCPUs can be slowed down', 'The guest has no setThrottle');
  }
}

/** Whether a source with these capabilities opens a return path. */
export function usesReturnPath(capabilities: Capabilities): boolean {
  return capabilities.has('return-path') || capabilities.has('postcopy-ram');
}
