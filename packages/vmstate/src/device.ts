import type { ByteReader, ByteWriter, Parser } from '@wherry/bytes';
import type { Description } from './description.ts';
import type { MigrationPriority } from './description-spec.ts';
import type { VmdescDevice } from './vmdesc.ts';

/** What a section's header names a device by. */
export interface SectionName {
  readonly idstr: string;
  readonly instanceId: number;
}

/** A device's place in a stream: what a section's header names and how its body is written and read. */
export interface Device extends SectionName {
  /** Names under which older releases send it: found when loading, never sent. */
  readonly olderNames: readonly SectionName[];
  readonly version: number;
  /** Its section's place among the others. */
  readonly priority: MigrationPriority;
  /** Whether its section goes out while the migration is set up, the guest running. */
  readonly earlySetup: boolean;
  /** Whether the machine cannot be migrated while it holds the device. */
  readonly unmigratable: boolean;
  /** Whether the device sends its section at all. */
  isNeeded(): boolean;
  /** Writes the section's body. @returns its entry in the vmdesc */
  save(writer: ByteWriter): VmdescDevice;
  /** Reads the section's body and takes the state over once it is whole. @throws VmstateError */
  load(reader: ByteReader, version: number): Parser<void>;
}

/** What {@link vmstateDevice} takes. */
export interface VmstateDeviceOptions<S> {
  readonly idstr: string;
  /** Default 0. */
  readonly instanceId?: number;
  readonly olderNames?: readonly SectionName[];
  readonly description: Description<S>;
  /** Gives the state to save, and the base to load over. */
  readonly get: () => S;
  /** Takes a loaded state. */
  readonly set: (state: S) => void;
}

/** Makes a device of a description and access to its state. `DeviceRegistry.register` also names it. */
export function vmstateDevice<S>(options: VmstateDeviceOptions<S>): Device {
  const { idstr, instanceId = 0, olderNames = [], description } = options;
  const { version, priority, earlySetup, unmigratable } = description;
  return {
    ...{ idstr, instanceId, olderNames, version, priority, earlySetup, unmigratable },
    isNeeded: () => description.isNeeded(options.get()),
    save(writer) {
      const state = description.save(writer, options.get());
      return { name: idstr, instance_id: instanceId, ...state };
    },
    *load(reader, version) {
      options.set(yield* description.load(reader, options.get(), version, [idstr]));
    },
  };
}
