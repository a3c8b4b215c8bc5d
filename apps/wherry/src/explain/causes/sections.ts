import type { Cause } from '../cause.ts';

/** The frame of sections and footers: devices that one side lacks, ends that do not meet. */
export const SECTIONS: readonly Cause[] = [
  {
    code: 'UNKNOWN_SECTION',
    what: 'The stream holds the state of "{device}", instance {instance}, and the destination has no such device',
    why: 'The destination was started without it, or with it at another address; or it was plugged in while the source ran and the destination’s command line does not have it.',
    action:
      'Give the destination the same devices at the same addresses (write addr= and bus= for each), also those that were hot-plugged. Or unplug the device at the source.',
    messages: ["Unknown [savevm ]section or instance '{device}' {instance#}"],
    errors: ['SECTION_UNKNOWN'],
  },
  {
    code: 'UNKNOWN_SECTION_ID',
    what: 'The stream goes on with section {section}, which never began',
    why: 'The section before was read to a wrong length, so that bytes of its body were taken for a head; or the stream is damaged.',
    action:
      'Look at the section before this one with `wherry inspect`: that device differs between the two sides.',
    messages: ['Unknown savevm section {section#}', 'Unknown section {section#}'],
  },
  {
    code: 'SECTION_VERSION',
    what: 'The state of "{device}" has version {version}, the destination knows up to {supported}',
    why: 'The source is a newer release, and its machine type does not keep this device at the older version.',
    action:
      'Use a machine type that both releases have, named by version. If both already do, this is a fault of the newer release.',
    messages: ["[savevm: ]unsupported version {version#} for '{device}' v{supported#}"],
    errors: ['SECTION_VERSION'],
  },
  {
    code: 'FOOTER_MISSING',
    what: 'The section[ of "{device}"] does not end where the destination has read all its fields',
    why: 'The two sides describe this device differently: a field was added, grew, or hangs on a property that is set on one side only. Often a subsection that the destination does not know was left unread.',
    action:
      'Compare the device’s properties on both sides. `wherry check SOURCE DEST` on the stream and on the destination’s -dump-vmstate names the field.',
    messages: ['Missing section footer for {device}'],
    errors: ['FOOTER_MISSING', 'TRAILING_BYTES'],
  },
  {
    code: 'FOOTER_MISMATCH',
    what: 'The footer of "{device}" has section id {found}, not {expected}',
    why: 'The section was read to a wrong length and ended by chance at another footer, or the stream is damaged.',
    action: 'Look at the section with `wherry inspect`, and compare the device on both sides.',
    messages: ['Mismatched section id in footer for {device} - read {found#} expected {expected#}'],
    errors: ['FOOTER_MISMATCH'],
  },
  {
    code: 'NO_FOOTERS',
    errors: ['FOOTERS_ABSENT'],
    what: 'The sections of the stream have no footers',
    why: 'The sender runs with -global migration.send-section-footer=off, or a machine type up to 2.3.',
    action:
      'Set it alike on both sides. From a file, `wherry inspect` divides the sections by the vmdesc; from a pipe it cannot.',
  },
  {
    code: 'SECTION_TYPE_UNKNOWN',
    what: 'What begins behind a section is no section: its type[, {type},] is not known',
    why: 'The section before was read to a wrong length: the two sides describe that device differently. Without section footers this is the first sign.',
    action:
      'Look at the section before this one with `wherry inspect`, and compare that device on both sides.',
    messages: ['Unknown [savevm ]section type {type#}'],
    errors: ['SECTION_TYPE_UNKNOWN'],
  },
  {
    code: 'SECTION_TOO_LARGE',
    what: 'A section is larger than any device’s state',
    why: 'Its length was damaged, or its footer was lost, so that what follows was taken for its body.',
    action: 'Save the stream again; compare the sizes at the sender and here.',
    errors: ['SECTION_TOO_LARGE', 'LIMIT_EXCEEDED'],
  },
  {
    code: 'LIVE_SECTION_INVALID',
    what: 'A live section (dirty bitmaps, block, storage keys) cannot be read by its format',
    why: 'The stream is damaged, or a newer release wrote something here that this program does not know.',
    action:
      'Look at the place with `wherry inspect --at OFFSET`; migrate again without what the section belongs to.',
    errors: ['LIVE_SECTION_INVALID'],
  },
  {
    code: 'SECTION_HEAD_CUT',
    what: 'The stream ends in the head of a section',
    why: 'The sender stopped, or the connection was cut.',
    action: 'Look at the sender’s own log: the reason is there.',
    messages: [
      'Unable to read ID string for section {section#}',
      'Failed to read instance/version ID: {error#}',
      'Failed to read section ID: {error#}',
      'Failed to load section ID: stream error: {error#}',
    ],
  },
  {
    code: 'FOOTER_CUT',
    what: 'The stream ends before a section’s footer',
    why: 'The sender stopped, or the connection was cut, while it sent a device; or the destination’s device reads more than the source sent.',
    action: 'Look at the sender’s log first. If it completed, compare the device on both sides.',
    messages: [
      'check_section_footer: Read section footer failed: {error#}',
      'Section footer error, section_id: {section#}',
    ],
  },
  {
    code: 'VMDESC_EXPECTED',
    what: 'No description of the device state follows the end of the stream[: byte {found} stands there]. The migration itself is complete',
    why: 'The source does not send it (suppress-vmdesc, old machine types, postcopy) or closed before it. It serves analysis only.',
    action: 'Nothing: the guest is loaded. A found 0 means that nothing followed.',
    messages: ['Expected vmdescription section, but got {found#}'],
  },
  {
    code: 'VMDESC_INVALID',
    what: 'The description behind the end of the stream cannot be read',
    why: 'The stream was cut or damaged near its end. The guest’s state is not affected: QEMU does not use this text.',
    action:
      'Devices can be decoded with the description of another stream of the same machine: `wherry inspect --schema`.',
    errors: ['VMDESC_INVALID'],
  },
  {
    code: 'NAME_INVALID',
    what: 'A name in the stream is no text',
    why: 'The stream is damaged, or was read to a wrong length before, so that other bytes were taken for a name.',
    action: 'Look at the item before this place with `wherry inspect --at OFFSET`.',
    errors: ['NOT_TEXT'],
  },
  {
    code: 'TRAILING_BYTES',
    what: 'Bytes[ ({count})] follow the end of the stream that do not belong to it',
    why: 'The file held something longer before and was not truncated, or two outputs were written to it.',
    action: 'The stream itself is whole. Write to a new file, or truncate before writing.',
  },
  {
    code: 'TRUNCATED_IN_HEADER',
    what: 'The stream ends in its first bytes',
    why: 'The sender failed at its start: before any section was sent.',
    action: 'Look at the sender’s own log, and at query-migrate there: error-desc says why.',
  },
  {
    code: 'TRUNCATED_IN_RAM',
    what: 'The stream ends among the pages of RAM',
    why: 'The sender stopped, was killed or cancelled, the connection was cut, or the disk was full, before the guest was stopped: it still runs at the source, or can.',
    action:
      'Look at the sender’s log and at the free space of the disk. Start the migration again.',
    messages: ['Getting RAM address failed'],
  },
  {
    code: 'TRUNCATED_IN_DEVICE',
    what: 'The stream ends in the state of a device',
    why: 'The sender failed while it saved the devices, with the guest already stopped, or the connection was cut in that instant.',
    action:
      'Look at the sender’s log for the device: a pre_save that failed is named there. The guest can be continued at the source.',
  },
  {
    code: 'TRUNCATED_BETWEEN_SECTIONS',
    what: 'The stream ends between two sections, before its end mark',
    why: 'The sender stopped or was cut there: a device that could not be saved ends a migration so.',
    action: 'Look at the sender’s log: the device that comes next is not in the stream.',
  },
  {
    code: 'TRUNCATED_IN_VMDESC',
    what: 'The stream ends in the description of its devices, behind its end',
    why: 'The receiver closed the connection when it had all it needs, or the last write was cut. RAM and devices are all there.',
    action:
      'The stream can be loaded. To decode its devices, give the description of another stream: `wherry inspect --schema`.',
  },
];
