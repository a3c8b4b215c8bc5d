import type { QapiMerged, QapiValue } from './schema.ts';

/**
 * Defines the commands that every {@link QmpServer} answers by itself.
 *
 * @see QEMU qapi/control.json
 */
export const controlSchema = {
  types: {
    QMPCapability: { enum: ['oob'] },
    VersionTriple: { struct: { major: 'int', minor: 'int', micro: 'int' } },
    VersionInfo: { struct: { qemu: 'VersionTriple', package: 'str' } },
    CommandInfo: { struct: { name: 'str' } },
  },
  commands: {
    qmp_capabilities: { data: { '*enable': ['QMPCapability'] } },
    'query-version': { returns: 'VersionInfo' },
    'query-commands': { returns: ['CommandInfo'] },
  },
} as const;

type ControlSchema = typeof controlSchema;

/** Schema `S` with the commands of {@link controlSchema}. */
export type WithControl<S> = QapiMerged<S, ControlSchema>;

export type QmpCapability = QapiValue<ControlSchema, 'QMPCapability'>;
export type VersionInfo = QapiValue<ControlSchema, 'VersionInfo'>;
export type CommandInfo = QapiValue<ControlSchema, 'CommandInfo'>;
