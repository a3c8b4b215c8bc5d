import { MIGRATION_PRIORITIES } from './description-spec.ts';
import {
  type Device,
  type SectionName,
  type VmstateDeviceOptions,
  vmstateDevice,
} from './device.ts';
import { VmstateError } from './vmstate-error.ts';

/** Bytes of the longest section name: its length is one byte. */
const MAX_IDSTR_BYTES = 255;

/** What {@link DeviceRegistry.register} takes. */
export interface DeviceRegistration<S>
  extends Pick<VmstateDeviceOptions<S>, 'description' | 'get' | 'set'> {
  /**
   * Where the device is, such as `0000:00:02.0`: its section is then `0000:00:02.0/virtio-net`, and is
   * also found by the bare name and an instance id of that, as releases before bus paths sent it.
   */
  readonly busPath?: string;
  /** Default: the lowest that no device of the name has reached. With a bus path it counts for the bare name. */
  readonly instanceId?: number;
  /** A second instance id under which older releases send the device. */
  readonly alias?: {
    readonly instanceId: number;
    /** Newest version of the description that was ever sent with it. */
    readonly requiredForVersion: number;
  };
}

/**
 * Holds the devices of a machine in the order of their registration; gives them their names in the
 * stream, finds them by it, and orders their sections.
 *
 * @see vmstate_register_with_alias_id, savevm_state_handler_insert and find_se in QEMU's migration/savevm.c
 */
export class DeviceRegistry {
  readonly #devices: Device[] = [];
  /** Bare names of devices with a bus path. */
  readonly #bareNames: SectionName[] = [];

  /** @throws VmstateError `REGISTRATION_INVALID` */
  constructor(devices: Iterable<Device> = []) {
    for (const device of devices) this.add(device);
  }

  /** The devices in the order of their registration. */
  get devices(): readonly Device[] {
    return this.#devices;
  }

  /** Orders the devices as their sections go out: by priority, then by registration. */
  inSectionOrder(): readonly Device[] {
    const rank = ({ priority }: Device): number => MIGRATION_PRIORITIES.indexOf(priority);
    return this.#devices.toSorted((a, b) => rank(a) - rank(b));
  }

  /** Finds a device by the name in a section's header: its own, or one that an older release sends. */
  find(idstr: string, instanceId: number): Device | undefined {
    const isNamed = (name: SectionName): boolean =>
      name.idstr === idstr && name.instanceId === instanceId;
    return (
      this.#devices.find(isNamed) ??
      this.#devices.find(({ olderNames }) => olderNames.some(isNamed))
    );
  }

  /**
   * Names a device, makes it and adds it.
   *
   * @throws VmstateError `REGISTRATION_INVALID`
   */
  register<S>(registration: DeviceRegistration<S>): Device {
    const { busPath, description, alias, get, set } = registration;
    const { name } = description;
    if (alias !== undefined && alias.requiredForVersion < description.minimumVersion) {
      throw invalid(`'${name}' has an alias that nothing sends any more`, name, {
        expected: `an alias for version ${description.minimumVersion} or newer`,
        found: `one for ${alias.requiredForVersion}`,
        likely: 'The minimum version was raised: drop the alias',
      });
    }
    const aliased = (idstr: string): SectionName[] =>
      alias === undefined ? [] : [{ idstr, instanceId: alias.instanceId }];
    if (busPath === undefined) {
      const { instanceId = nextInstance(this.#devices, name) } = registration;
      const olderNames = aliased(name);
      return this.add(
        vmstateDevice({ description, get, set, idstr: name, instanceId, olderNames }),
      );
    }
    const idstr = `${busPath}/${name}`;
    const { instanceId = nextInstance(this.#bareNames, name) } = registration;
    const bare = { idstr: name, instanceId };
    const device = this.add(
      vmstateDevice({
        ...{ description, get, set, idstr },
        olderNames: [...aliased(idstr), bare, ...aliased(name)],
      }),
    );
    this.#bareNames.push(bare);
    return device;
  }

  /**
   * Adds a device that has its name already.
   *
   * @returns the device
   * @throws VmstateError `REGISTRATION_INVALID` where a section of that name would go to another one
   */
  add(device: Device): Device {
    const { idstr, instanceId } = device;
    if (new TextEncoder().encode(idstr).length > MAX_IDSTR_BYTES) {
      throw invalid(`Path too long for VMState (${idstr})`, idstr, {
        expected: `at most ${MAX_IDSTR_BYTES} bytes`,
      });
    }
    const other = this.find(idstr, instanceId);
    if (other !== undefined) {
      throw invalid(`Two devices have the section '${idstr}' ${instanceId}`, idstr, {
        found: `another one in '${other.idstr}' ${other.instanceId}`,
        likely: 'Give each another bus path or another instance id, the same on both sides',
      });
    }
    this.#devices.push(device);
    return device;
  }
}

/** The lowest instance id above all that the name has. */
function nextInstance(taken: readonly SectionName[], idstr: string): number {
  let next = 0;
  for (const name of taken) {
    if (name.idstr === idstr) next = Math.max(next, name.instanceId + 1);
  }
  return next;
}

function invalid(
  what: string,
  idstr: string,
  detail: { expected?: string; found?: string; likely?: string },
): VmstateError {
  return new VmstateError('REGISTRATION_INVALID', what, { ...detail, path: [idstr] });
}
