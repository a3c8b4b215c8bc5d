import { BITMAP_SECTION, RAM_SECTION, type SectionHead } from '@wherry/stream';
import type { Device, DeviceRegistry } from '@wherry/vmstate';
import { MigrationError } from './migration-error.ts';

/** A section that has begun, and what reads it. */
export interface IncomingSection {
  readonly start: Extract<SectionHead, { readonly idstr: string }>;
  readonly device: Device | 'ram' | 'dirty-bitmap';
}

/** Sections that are no device's. */
const LIVE_SECTIONS = [RAM_SECTION, BITMAP_SECTION] as const;

/** Finds what reads a section: by name when it begins, by id when it goes on. */
export class IncomingSections {
  readonly #registry: DeviceRegistry;
  readonly #begun = new Map<number, IncomingSection>();

  constructor(registry: DeviceRegistry) {
    this.#registry = registry;
  }

  /**
   * @throws MigrationError `SECTION_UNKNOWN`, `SECTION_VERSION`
   * @see qemu_loadvm_section_start_full and qemu_loadvm_section_part_end in QEMU's migration/savevm.c
   */
  resolve(head: SectionHead, offset: number): IncomingSection {
    if (!('idstr' in head)) {
      const begun = this.#begun.get(head.sectionId);
      if (begun !== undefined) return begun;
      throw new MigrationError('SECTION_UNKNOWN', `Unknown section ${head.sectionId}`, {
        expected: `one of ${[...this.#begun.keys()].join(', ') || 'none'}`,
        offset,
        likely: 'The stream is damaged before this point',
      });
    }
    const { idstr, instanceId, version } = head;
    const live = LIVE_SECTIONS.find(
      (known) => known.idstr === idstr && known.instanceId === instanceId,
    );
    const device = live?.idstr ?? this.#registry.find(idstr, instanceId);
    if (device === undefined) {
      throw new MigrationError(
        'SECTION_UNKNOWN',
        `Unknown section or instance '${idstr}' ${instanceId}. Make sure that your current VM setup matches your saved VM setup, including any hotplugged devices`,
        {
          expected: this.#registry.devices.map((known) => known.idstr).join(', '),
          offset,
          path: [idstr],
          likely: 'The source has a device that this side lacks, or has it at another address',
        },
      );
    }
    const local = typeof device === 'string' ? live!.version : device.version;
    if (version > local) {
      throw new MigrationError(
        'SECTION_VERSION',
        `unsupported version ${version} for '${idstr}' v${local}`,
        {
          offset,
          path: [idstr],
          likely: 'The source is a newer release: use the older machine type on both sides',
        },
      );
    }
    const begun: IncomingSection = { start: head, device };
    if (head.kind === 'start') this.#begun.set(head.sectionId, begun);
    return begun;
  }
}
