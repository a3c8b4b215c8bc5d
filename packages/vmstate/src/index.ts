export {
  Description,
  type DescriptionSpec,
  describe,
  MIGRATION_PRIORITIES,
  type MigrationPriority,
  type StateOf,
  struct,
} from './description.ts';
export {
  type Device,
  type SectionName,
  type VmstateDeviceOptions,
  vmstateDevice,
} from './device.ts';
export { type DeviceRegistration, DeviceRegistry } from './device-registry.ts';
export {
  type Dump,
  type DumpDescription,
  type DumpField,
  type DumpType,
  parseDump,
} from './dump.ts';
export { type Field, type FieldOptions, field } from './field.ts';
export {
  type ArrayOf,
  array,
  type FixedKind,
  type Kind,
  type LoadContext,
  type VariableKind,
  type VmdescDetail,
  varray,
} from './kind.ts';
export {
  bool,
  buffer,
  equal,
  i8,
  i16,
  i32,
  i32AtMost,
  i64,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  vbuffer,
} from './kinds.ts';
export {
  decodeWithVmdesc,
  decodeWithVmdescPartially,
  type PartialState,
} from './tree/decode-with-vmdesc.ts';
export { describeState } from './tree/describe-state.ts';
export { addSubsection, dropSubsection, setState } from './tree/edit-state.ts';
export { encodeState } from './tree/encode-state.ts';
export type { StateNode, StateValue } from './tree/state-node.ts';
export { findState } from './tree/state-path.ts';
export {
  parseVmdesc,
  type Vmdesc,
  type VmdescDevice,
  type VmdescField,
  type VmdescState,
} from './vmdesc.ts';
export { VmstateError, type VmstateErrorCode } from './vmstate-error.ts';
