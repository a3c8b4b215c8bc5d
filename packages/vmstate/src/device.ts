import type { ByteReader, ByteWriter, Parser } from '@wherry/bytes';
import type { Description } from './description.ts';
import type { VmdescDevice } from './vmdesc.ts';

/** A device's place in a stream: what a section's header names and how its body is written and read. */
export interface Device {
  /** The section's name: the device's bus path and its description's name, or the name alone. */
  readonly idstr: string;
  readonly instanceId: number;
  readonly version: number;
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
  readonly instanceId?: number;
  readonly description: Description<S>;
  /** Gives the state to save, and the base to load over. */
  readonly get: () => S;
  /** Takes a loaded state. */
  readonly set: (state: S) => void;
}

/** Makes a device of a description and access to its state. */
export function vmstateDevice<S>(options: VmstateDeviceOptions<S>): Device {
  const { idstr, description, instanceId = 0 } = options;
  return {
    idstr,
    instanceId,
    version: description.version,
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
