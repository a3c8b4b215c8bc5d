import type { Cause } from './cause.ts';
import { BEGINNING } from './causes/beginning.ts';
import { CONFIGURATION } from './causes/configuration.ts';
import { CONNECTION } from './causes/connection.ts';
import { DEVICES } from './causes/devices.ts';
import { ERRNO_CAUSES } from './causes/errno.ts';
import { POSTCOPY } from './causes/postcopy.ts';
import { RAM } from './causes/ram.ts';
import { SECTIONS } from './causes/sections.ts';

/** The catalogue by area, in the order of docs/causes.md. */
export const CATALOGUE: readonly (readonly [area: string, causes: readonly Cause[]])[] = [
  ['The beginning of the stream', BEGINNING],
  ['Configuration', CONFIGURATION],
  ['Sections', SECTIONS],
  ['Device state', DEVICES],
  ['RAM', RAM],
  ['Commands, postcopy, return path, dirty bitmaps', POSTCOPY],
  ['Connections, multifd, QMP', CONNECTION],
  ['Error numbers', ERRNO_CAUSES],
];

/** Every cause. */
export const CAUSES: readonly Cause[] = CATALOGUE.flatMap(([, causes]) => causes);

/** Finds the cause of that code. */
export function causeOf(code: string): Cause | undefined {
  return CAUSES.find((cause) => cause.code === code);
}

/** Finds the cause behind an error of this program's own, by its code. */
export function causeOfError(code: string): Cause | undefined {
  return CAUSES.find(({ errors }) => errors?.includes(code));
}
