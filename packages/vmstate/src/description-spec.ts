import type { Description } from './description.ts';
import type { Field, FieldsState } from './field.ts';

/** What {@link describe} takes. */
export interface DescriptionSpec<F extends readonly Field[], Sub extends readonly Description[]> {
  /** Name of the description (its `VMStateDescription.name`); a subsection's begins with its parent's and a slash. */
  readonly name: string;
  readonly version: number;
  /** Oldest version that can be loaded; default `version`. */
  readonly minimumVersion?: number;
  readonly fields: F;
  readonly subsections?: Sub;
  /** For a subsection: whether the state needs it on the wire. */
  readonly needed?: (state: never) => boolean;
  /** Whether a machine that holds the device cannot be migrated; default false. */
  readonly unmigratable?: boolean;
  /** Whether the state is sent while the migration is set up, the guest running; default false. */
  readonly earlySetup?: boolean;
  /** Place in the order of sections; default `default`. */
  readonly priority?: MigrationPriority;
  /** Changes the state's copy before it is written; a throw ends the save. */
  readonly preSave?: (state: FieldsState<F>) => void;
  /** Runs after fields and subsections, also where writing them failed, unless `preSave` refused. */
  readonly postSave?: (state: FieldsState<F>) => void;
  /** Sets on the state's copy what absent fields and subsections leave. */
  readonly preLoad?: (state: FieldsState<F>) => void;
  /** Checks or completes the loaded state; a throw refuses it. */
  readonly postLoad?: (state: FieldsState<F>, version: number) => void;
}

/**
 * The order in which devices are sent, first to last; within one priority, that of registration.
 *
 * @see MigrationPriority in QEMU's include/migration/vmstate.h
 */
export const MIGRATION_PRIORITIES = [
  'gicv3',
  'gicv3-its',
  'apic',
  'virtio-mem',
  'pci-bus',
  'iommu',
  'default',
  'low',
] as const;

/** One of {@link MIGRATION_PRIORITIES}. */
export type MigrationPriority = (typeof MIGRATION_PRIORITIES)[number];
