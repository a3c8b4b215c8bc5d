import { WherryError } from '@wherry/bytes';
import type { SectionName } from '@wherry/vmstate';
import { MigrationError } from './migration-error.ts';

/**
 * Says which section a failure is of, over all that the device's own error knows.
 *
 * @param sectionOffset absolute offset of the section, where the failure has none of its own
 * @see qemu_loadvm_section_start_full in QEMU's migration/savevm.c for the words
 */
export function deviceError(
  doing: 'saving' | 'loading',
  { idstr, instanceId }: SectionName,
  cause: unknown,
  sectionOffset?: number,
): MigrationError {
  const own = cause instanceof WherryError ? cause : undefined;
  const reason = own?.what ?? (cause instanceof Error ? cause.message : String(cause));
  const { offset = sectionOffset, path = [], expected, found, likely } = own ?? {};
  return new MigrationError(
    'DEVICE_STATE',
    `error while ${doing} state for instance 0x${instanceId.toString(16)} of device '${idstr}': ${reason}`,
    {
      path: [idstr, ...path.slice(1)], // its own begins with the device as well
      ...(offset === undefined ? {} : { offset }),
      ...(expected === undefined ? {} : { expected }),
      ...(found === undefined ? {} : { found }),
      ...(likely === undefined ? {} : { likely }),
      cause,
    },
  );
}
