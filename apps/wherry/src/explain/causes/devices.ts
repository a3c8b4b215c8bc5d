import type { Cause } from '../cause.ts';

/** The state of devices: versions, subsections, fields, hooks. */
export const DEVICES: readonly Cause[] = [
  {
    code: 'VERSION_TOO_NEW',
    what: 'The state of {state} has[ version {version},] a version that is newer than the destination knows[: {local}]',
    why: 'The source is a newer release whose machine type does not keep the older version.',
    action: 'Use a versioned machine type that both releases have.',
    messages: [
      '{state}: incoming version_id {version#} is too new for local version_id {local#}',
      '{state} too new$',
    ],
    errors: ['VERSION_TOO_NEW'],
  },
  {
    code: 'VERSION_TOO_OLD',
    what: 'The state of {state} has[ version {version},] a version that is older than the destination takes[: at least {minimum}]',
    why: 'The source is so old that the destination gave up its format.',
    action: 'Migrate through a release between the two.',
    messages: [
      '{state}: incoming version_id {version#} is too old for local minimum version_id  {minimum#}',
      '{state}: incoming version_id {version#} is too old for local minimum version_id {minimum#}',
      '{state} too old$',
    ],
    errors: ['VERSION_TOO_OLD'],
  },
  {
    code: 'SUBSECTION_UNKNOWN',
    what: 'The stream has the subsection {subsection} in {state}, which the destination does not know',
    why: 'The source is a newer release and has state that the older one cannot hold, or a property at the source asks for it.',
    action:
      'Switch off the property or feature at the source that this subsection belongs to, or use an older machine type there: machine types switch such features off for old releases.',
    messages: ["VM subsection '{subsection}' in '{state}' does not exist"],
    errors: ['SUBSECTION_UNKNOWN'],
  },
  {
    code: 'SUBSECTION_FAILED',
    what: 'The subsection {subsection} in {state} could not be loaded (error {error})',
    why: 'Its version or one of its values is not accepted at the destination; the text behind it says which.',
    action: 'Read on: the reason follows in the same line or in the one before.',
    messages: ["Loading VM subsection '{subsection}' in '{state}' failed: {error#}"],
  },
  {
    code: 'VALUE_MISMATCH',
    what: 'A value that must be equal on both sides is not: {local} at the destination, {received} in the stream',
    why: 'The field holds a size or count that the command line decides: number of ports, queues, slots, RAM of a display.',
    action: 'Compare the options of the device named in the next line on both sides.',
    messages: ['^{local#} != {received#}$', ': {local#} != {received#}$'],
    errors: ['VALUE_MISMATCH'],
  },
  {
    code: 'VALUE_RANGE',
    what: 'The stream has the value {value} where at most {maximum} is possible',
    why: 'A count that the source’s options decide is larger than what the destination has room for; or the stream is damaged.',
    action: 'Compare the options of the device named in the next line on both sides.',
    messages: ['Invalid value {value#} expecting positive value <= {maximum#}'],
    errors: ['VALUE_INVALID', 'COUNT_INVALID', 'VALUE_OUT_OF_RANGE'],
  },
  {
    code: 'INPUT_VALIDATION',
    what: 'The state of {state} does not pass the check {field}',
    why: 'The device checks the values against each other, and these do not fit: other options on the two sides, or a damaged stream.',
    action: 'Compare the options of this device on both sides.',
    messages: [
      'Input validation failed: {state}/{field} version_id: {version#}',
      'Input validation failed: {state}/{field}',
    ],
    errors: ['VALIDATION_FAILED'],
  },
  {
    code: 'PCI_CONFIG',
    what: 'The PCI configuration of a device differs at byte {byte}: {read} in the stream, {device} at the destination',
    why: 'Bytes of the configuration that the guest cannot change are not alike: another device model, revision, number of MSI-X vectors, ROM size or another order of capabilities. The byte tells: 0x00-0x03 vendor and device, 0x08-0x0b class and revision, 0x10-0x27 sizes of the BARs, 0x30 ROM, from 0x34 on capabilities.',
    action:
      'Compare machine type, device options (vectors=, romfile=, rombar=) and firmware packages of the two hosts.',
    messages: [
      'Bad config data: i={byte#} read: {read#} device: {device#} cmask: {cmask#} wmask: {wmask#} w1cmask:{w1cmask#}',
    ],
  },
  {
    code: 'VIRTIO_FEATURES',
    what: 'The guest uses virtio features {features}, and the destination allows {allowed} alone',
    why: 'A feature is on at the source and off at the destination: offloads of the network backend, a vhost or kernel that differs, or device options.',
    action:
      'Compare the device’s options and the backends on both sides; switch the missing bits off at the source and restart the guest’s driver.',
    messages: ['Features {features#} unsupported. Allowed features: {allowed#}'],
  },
  {
    code: 'VIRTQUEUE_INDEX',
    what: 'Virtqueue {queue} is inconsistent: size {size}, guest index {guest}, host index {host}',
    why: 'RAM and device state do not belong together: pages were lost or are older than the devices, or the queue sizes differ.',
    action:
      'Migrate again. If it comes back, compare queue-size on both sides; a repeated case is a fault in dirty tracking (vhost backends are a usual place).',
    messages: [
      'VQ {queue#} size {size#} Guest index {guest#} inconsistent with Host index {host#}',
      'VQ {queue#} size {size#} < last_avail_idx {guest#} - used_idx {host#}',
    ],
  },
  {
    code: 'KVM_MSR',
    what: 'The destination’s CPU does not accept the register {msr} with value {value}',
    why: 'Host CPU, microcode or kernel are older than at the source, and the CPU model does not hide the difference (-cpu host never does).',
    action: 'Use a CPU model that both hosts have; bring kernel and microcode to the same level.',
    messages: ['error: failed to set MSR {msr#} to {value#}'],
  },
  {
    code: 'NULL_POINTER_MARKER',
    what: 'An array of pointers has an element on one side that is missing on the other',
    why: 'The two sides have different parts plugged into that device.',
    action: 'Compare what hangs on the device named in the next line.',
    messages: [
      'vmstate: get_nullptr expected VMS_NULLPTR_MARKER',
      'Unexpected ptr marker: {marker#}',
    ],
  },
  {
    code: 'PRE_LOAD_FAILED',
    what: 'The destination could not prepare {state} for loading',
    why: 'Its pre_load refused: the device is in a state in which nothing can be loaded, or lacks a resource.',
    action: 'The text behind it, or the lines before, say what the device lacks.',
    messages: [
      "pre load hook failed for: '{state}', version_id: {version#}, minimum version_id: {minimum#}",
    ],
  },
  {
    code: 'POST_LOAD_FAILED',
    what: 'The destination has read {state} and then refused it',
    why: 'Its post_load found values that do not fit this device: other options, or a backend that cannot do what the guest already uses.',
    action:
      'The text behind it, or the lines before, name the value. Compare options and backends of the device on both sides.',
    messages: [
      'post load hook failed for: {state}, version_id: {version#}, minimum_version: {minimum#}',
    ],
    errors: ['HOOK_FAILED'],
  },
  {
    code: 'FIELD_FAILED',
    what: 'A field[, {field},] of {state} could not be loaded',
    why: 'The value is not accepted, or the stream ended in it; a line before this one says which. Several such lines go from the inside out.',
    action: 'Look at the first of these lines: it names the innermost field.',
    messages: [
      'Failed to load {state}:{field}',
      'Failed to load element of type {field} for {state}: {error#}',
      'Failed to load {state} state: stream error: {error#}',
    ],
  },
  {
    code: 'DEVICE_FAILED',
    what: 'The state of "{device}" could not be loaded',
    why: 'This line only names the device; the reason stands before it (10.0 and older) or behind it (11.1).',
    action: 'Explain that line: `wherry explain - < LOG` takes the whole log.',
    messages: [
      "error while loading state for instance {instance#} of device '{device}'",
      'error while loading state section id {section#}({device})',
      'Load state of device {device} failed',
    ],
  },
  {
    code: 'VMSTATE_FAILED',
    what: 'A section could not be loaded[: version {version}, error {error}]',
    why: 'This line is a frame around the reason.',
    action: 'Read the lines before it: an older message there says what was wrong.',
    messages: [
      'Failed to load vmstate version_id: {version#}, ret: {error#}',
      'Error while loading vmstate',
    ],
  },
  {
    code: 'SAVE_FAILED',
    what: 'The source could not save a device[: {state}]',
    why: 'The device’s pre_save or a field refused: a backend or the kernel did not give its state.',
    action: 'The lines before it at the source name the reason; the guest goes on at the source.',
    messages: [
      'pre-save failed: {state}',
      "error while saving state for instance {instance#} of device '{state}'",
      'pre-save for {state} failed',
      'post-save failed: {state}',
      'Save of field {state} failed',
      'failed to save SaveStateEntry with id(name): {id#}({state}): {error#}',
      'Output state validation failed: {state}',
    ],
  },
  {
    code: 'DESCRIPTION_MISMATCH',
    what: 'A section differs from its own description',
    why: 'QEMU before 10.0 describes arrays of pointers with holes wrongly; otherwise the section is damaged, or the description given belongs to another machine.',
    action:
      'If a schema was given, take one of the very same machine. Otherwise compare the bytes with a second recording.',
    errors: ['VMDESC_MISMATCH', 'SCHEMA_MISMATCH'],
  },
  {
    code: 'SCHEMA_AMBIGUOUS',
    what: 'The state of a device can be read in several ways by what is known of it',
    why: 'A dump tells neither the lengths of arrays nor which conditional fields are sent, so that several readings fill the section.',
    action: 'Give `--schema` another stream of the same machine: its vmdesc leaves nothing open.',
    errors: ['SCHEMA_AMBIGUOUS'],
  },
  {
    code: 'DUMP_INVALID',
    what: 'The file is no dump of device types as -dump-vmstate writes it',
    why: 'Another file was named, or it was cut.',
    action: 'Write it anew: qemu-system-… -M MACHINE -dump-vmstate FILE.',
    errors: ['DUMP_INVALID'],
  },
  {
    code: 'NOT_MIGRATABLE',
    what: 'A device of the guest[, {device},] cannot be migrated',
    why: 'It has no description of its state, or holds something that cannot leave this host.',
    action: 'Unplug it, or start the guest without it.',
    messages: [
      "State blocked by non-migratable device '{device}'",
      'non-migratable device: {device}',
      'Device {device} is not migratable, but --only-migratable was specified',
      "Migration is disabled when using feature '{feature}' in device '{device}'",
      'State blocked by non-migratable CPU device',
    ],
  },
];
