import { DEFAULT_PARAMETERS, type Parameters } from './parameters.ts';

/** The release of a versioned machine type, such as `pc-q35-8.2`; undefined for one of no release. */
function releaseOf(machineType: string): number | undefined {
  const version = /-(\d+)\.(\d+)$/.exec(machineType);
  return version === null ? undefined : Number(version[1]) * 100 + Number(version[2]);
}

/**
 * Tells whether multifd waits for its channels at the end of each section, as machine types up to 8.0
 * do, rather than of each round.
 *
 * @see multifd-flush-after-each-section in QEMU's hw/core/machine.c
 */
export function flushesAfterEachSection(machineType: string): boolean {
  return (releaseOf(machineType) ?? Number.POSITIVE_INFINITY) <= 800;
}

/**
 * Gives the parameters with which a host of this machine type begins.
 *
 * @see hw_compat_8_2 in QEMU's hw/core/machine.c
 */
export function defaultParameters(machineType: string): Parameters {
  const isOlder = (releaseOf(machineType) ?? Number.POSITIVE_INFINITY) < 900;
  return isOlder ? { ...DEFAULT_PARAMETERS, 'zero-page-detection': 'legacy' } : DEFAULT_PARAMETERS;
}
