import type { Cause } from '../cause.ts';

/** The configuration section: what both sides must have alike before anything is loaded. */
export const CONFIGURATION: readonly Cause[] = [
  {
    code: 'CONFIGURATION_MISSING',
    what: 'The stream has no configuration section, and the destination expects one',
    why: 'The source runs with -global migration.send-configuration=off or a machine type up to 2.3, the destination does not.',
    action: 'Give both sides the same machine type and the same -global migration.* options.',
    messages: [
      'Configuration section missing, {found#} != {expected#}',
      'Configuration section missing',
    ],
    errors: ['CONFIGURATION_MISSING'],
  },
  {
    code: 'CONFIGURATION_INVALID',
    what: 'The configuration section cannot be read',
    why: 'The beginning of the stream is damaged, or a newer release wrote something here that this side does not know.',
    action:
      'Save the stream again. If it comes from a newer release, check what that release adds for this machine type.',
    messages: [
      'post load hook failed for: configuration, version_id: {version#}, minimum_version: {minimum#}',
    ],
    errors: ['CONFIGURATION_INVALID'],
  },
  {
    code: 'MACHINE_TYPE',
    what: 'The source runs machine type {source}, the destination {destination}',
    why: 'The destination was started with another -machine. An alias such as `pc` or `q35` means the newest type of each release, so two releases with the same command line differ.',
    action: 'Start the destination with -machine {source}: always name a versioned machine type.',
    messages: ["Machine type received is '{source}' and local is '{destination}'"],
    errors: ['MACHINE_MISMATCH'],
  },
  {
    code: 'TARGET_PAGE_BITS',
    what: 'The guest’s page size differs: 2^{source} bytes at the source, 2^{destination} at the destination',
    why: 'The two sides have different CPU models or machine types: on ARM these decide the page size.',
    action: 'Use the same machine type and -cpu on both sides.',
    messages: ['Received TARGET_PAGE_BITS is {source#} but local is {destination#}'],
  },
  {
    code: 'CAPABILITY_MISMATCH',
    what: 'The capability {capability} is {local} at the destination and {received} at the source',
    why: 'This capability changes the stream, so both sides must agree on it.',
    action:
      'Set {capability} alike on both sides with migrate-set-capabilities, before the destination starts listening.',
    messages: ['Capability {capability} is {local}, but received capability is {received}'],
    errors: ['CAPABILITY_MISMATCH'],
  },
  {
    code: 'CAPABILITY_UNKNOWN',
    what: 'The source uses the capability {capability}, which the destination does not know',
    why: 'The source is a newer release.',
    action: 'Switch {capability} off at the source.',
    messages: ['Received unknown capability {capability}'],
    errors: ['CAPABILITY_UNSUPPORTED'],
  },
  {
    code: 'UUID_MISMATCH',
    what: 'The guests have different UUIDs: {source} at the source, {destination} at the destination',
    why: 'With validate-uuid on, the stream must be of the very guest that waits here: this one is of another.',
    action: 'Start the destination with -uuid {source}, or connect the right source.',
    messages: ['UUID received is {source} and local is {destination}'],
  },
  {
    code: 'UUID_UNSET',
    what: 'The stream names the UUID {source}, and the destination has none: only a warning',
    why: 'validate-uuid is on at the source; the destination was started without -uuid.',
    action:
      'Nothing needs to be done; start the destination with -uuid {source} to have it checked.',
    messages: ["UUID is received {source}, but local uuid isn't set"],
  },
  {
    code: 'RUN_STATE',
    what: 'The stream carries a run state that the destination does not accept: {state}',
    why: 'The source is a newer release with a state that this one lacks, or the globalstate section is damaged.',
    action: 'Bring the source guest into another state (resume or stop it) and migrate again.',
    messages: [
      'invalid parameter value: {state}',
      "Unable to parse run state '{state}'",
      "invalid runstate transition: 'inmigrate' -> '{state}'",
    ],
  },
];
