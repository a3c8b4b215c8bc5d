import type { Comparison } from './comparison.ts';
import type { Table } from './table.ts';

/** Compares versions that are on the wire: that of the section, or of a subsection in it. */
export function compareVersions(
  source: Table,
  dest: Table,
  path: readonly string[],
  { report, destIsStream, section }: Comparison,
  kind: 'section' | 'subsection' = 'section',
): void {
  const said = {
    path,
    source: `version ${source.version}`,
    dest: `version ${dest.version}${dest.minimumVersion === undefined ? '' : `, at least ${dest.minimumVersion}`}`,
  };
  if (source.version > dest.version) {
    report({
      ...said,
      verdict: 'breaks',
      rule: 'VERSION_TOO_NEW',
      why: 'The destination knows older versions of this state only.',
      whatToDo: 'Use a destination of the source’s release or newer.',
      message:
        kind === 'section'
          ? `savevm: unsupported version ${source.version} for '${section}' v${dest.version}`
          : `${dest.name}: incoming version_id ${source.version} is too new for local version_id ${dest.version}`,
    });
    return;
  }
  if (dest.minimumVersion !== undefined && source.version < dest.minimumVersion) {
    report({
      ...said,
      verdict: 'breaks',
      rule: 'VERSION_TOO_OLD',
      why: 'The destination no longer loads so old a version of this state.',
      whatToDo:
        'Migrate by way of a release between the two, or restart the guest on the destination.',
      message: `${dest.name}: incoming version_id ${source.version} is too old for local minimum version_id ${dest.minimumVersion}`,
    });
    return;
  }
  if (destIsStream && source.version < dest.version) {
    report({
      ...said,
      verdict: 'cannot-tell',
      rule: 'VERSION_UNKNOWN',
      why: 'A stream does not tell how old a version that side still loads.',
      whatToDo: 'Take a -dump-vmstate of the destination.',
    });
  }
}

export function compareNestedVersions(
  source: Table,
  dest: Table,
  path: readonly string[],
  { report }: Comparison,
): void {
  const tooOld = source.version < (dest.minimumVersion ?? -Infinity);
  if (source.version <= dest.version && !tooOld) return;
  report({
    verdict: 'may-break',
    rule: 'NESTED_VERSION',
    path,
    source: `version ${source.version}`,
    dest: `version ${dest.version}${dest.minimumVersion === undefined ? '' : `, at least ${dest.minimumVersion}`}`,
    why: 'The version of a nested state is not on the wire, so nothing refuses it; but the change of the version says that the state changed its meaning or its fields.',
    whatToDo: 'Look for findings on its fields; without any, the bytes fit.',
  });
}
