import { expect, it, describe as suite } from 'vitest';
import { describe } from './description.ts';
import type { MigrationPriority } from './description-spec.ts';
import { type DeviceRegistration, DeviceRegistry } from './device-registry.ts';
import { field } from './field.ts';
import { u8 } from './kinds.ts';

type State = { a: number };

function registration(
  name: string,
  extra: Partial<DeviceRegistration<State>> = {},
  priority: MigrationPriority = 'default',
): DeviceRegistration<State> {
  const spec = { name, version: 4, minimumVersion: 3, priority, fields: [field('a', u8)] } as const;
  return { description: describe(spec), get: () => ({ a: 1 }), set: () => {}, ...extra };
}

const namesOf = (devices: Iterable<{ idstr: string; instanceId: number }>) =>
  [...devices].map(({ idstr, instanceId }) => `${idstr} ${instanceId}`);

suite('the registry of devices', () => {
  it('numbers devices of the same name, above those with an id of their own', () => {
    const registry = new DeviceRegistry();
    for (const extra of [{}, {}, { instanceId: 7 }, {}]) {
      registry.register(registration('dma', extra));
    }
    registry.register(registration('i8259'));
    expect(namesOf(registry.devices)).toEqual(['dma 0', 'dma 1', 'dma 7', 'dma 8', 'i8259 0']);
  });

  it('names a device by its bus path and finds it by the bare name of older releases', () => {
    const registry = new DeviceRegistry();
    const paths = ['0000:00:02.0', '0000:00:05.0'];
    const [first, second] = paths.map((busPath) =>
      registry.register(registration('virtio-net', { busPath })),
    );
    expect(namesOf(registry.devices)).toEqual([
      '0000:00:02.0/virtio-net 0',
      '0000:00:05.0/virtio-net 0',
    ]);
    expect(registry.find('0000:00:05.0/virtio-net', 0)).toBe(second);
    expect(registry.find('virtio-net', 0)).toBe(first);
    expect(registry.find('virtio-net', 1)).toBe(second);
    expect(registry.find('virtio-net', 2)).toBeUndefined();
    expect(registry.find('0000:00:05.0/virtio-net', 1)).toBeUndefined();
  });

  it('counts an id given with a bus path for the bare name', () => {
    const registry = new DeviceRegistry();
    const busPath = '0000:00:01.1';
    registry.register(registration('ide', { busPath, instanceId: 3 }));
    registry.register(registration('ide', { busPath: '0000:00:01.2' }));
    expect(namesOf(registry.devices)).toEqual(['0000:00:01.1/ide 0', '0000:00:01.2/ide 0']);
    expect(registry.find('ide', 3)?.idstr).toBe('0000:00:01.1/ide');
    expect(registry.find('ide', 4)?.idstr).toBe('0000:00:01.2/ide');
  });

  it('finds a device by its alias, with and without a bus path', () => {
    const alias = { instanceId: 0xfee00, requiredForVersion: 3 };
    const registry = new DeviceRegistry();
    const apic = registry.register(registration('apic', { instanceId: 1, alias }));
    expect(registry.find('apic', 1)).toBe(apic);
    expect(registry.find('apic', 0xfee00)).toBe(apic);
    const hpet = registry.register(registration('hpet', { busPath: 'bus', alias }));
    for (const [idstr, instanceId] of [
      ...[['bus/hpet', 0] as const, ['bus/hpet', 0xfee00] as const],
      ...[['hpet', 0] as const, ['hpet', 0xfee00] as const],
    ]) {
      expect(registry.find(idstr, instanceId)).toBe(hpet);
    }
  });

  it('orders sections by priority, then by registration', () => {
    const registry = new DeviceRegistry();
    for (const [name, priority] of [
      ['a', 'default'],
      ['b', 'low'],
      ['c', 'iommu'],
      ['d', 'gicv3'],
      ['e', 'default'],
      ['f', 'iommu'],
    ] as const) {
      registry.register(registration(name, {}, priority));
    }
    expect(registry.inSectionOrder().map(({ idstr }) => idstr)).toEqual([...'dcfaeb']);
  });

  it.each<[string, (registry: DeviceRegistry) => void, RegExp]>([
    [
      'a second device of one name and id',
      (registry) => registry.register(registration('serial', { instanceId: 0 })),
      /Two devices have the section 'serial' 0: found another one in 'serial' 0, in serial/,
    ],
    [
      'a second device of one bus path and name',
      (registry) => registry.register(registration('e1000', { busPath: '0000:00:03.0' })),
      /Two devices have the section '0000:00:03.0\/e1000' 0/,
    ],
    [
      'a name that a device on a bus has for older releases',
      (registry) => registry.register(registration('e1000')),
      /Two devices have the section 'e1000' 0: found another one in '0000:00:03.0\/e1000' 0/,
    ],
    [
      'an alias that is needed no more',
      (registry) =>
        registry.register(registration('pit', { alias: { instanceId: 9, requiredForVersion: 2 } })),
      /'pit' has an alias that nothing sends any more: expected .* 3 or newer, found one for 2/,
    ],
    [
      'a path that no section can name',
      (registry) => registry.register(registration('x', { busPath: 'é'.repeat(127) })),
      /Path too long for VMState/,
    ],
  ])('refuses %s', (_, act, message) => {
    const registry = new DeviceRegistry();
    registry.register(registration('serial'));
    registry.register(registration('e1000', { busPath: '0000:00:03.0' }));
    expect(() => act(registry)).toThrow(message);
    expect(() => act(registry)).toThrow(
      expect.objectContaining({ code: 'REGISTRATION_INVALID' }) as Error,
    );
    expect(registry.devices).toHaveLength(2);
  });
});
