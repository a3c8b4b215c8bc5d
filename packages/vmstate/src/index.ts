export {
  array,
  array2d,
  markedPointerArray,
  pointerArray,
  subArray,
  type VarrayOptions,
  varray,
} from './array-kinds.ts';
export {
  bitmap,
  buffer,
  bufferPart,
  byteArray,
  capability,
  type UnusedKind,
  type UnusedOptions,
  unused,
  type VbufferOptions,
  vbuffer,
} from './buffer-kinds.ts';
export { type CheckOptions, checkDumps } from './check/check-dumps.ts';
export { type CheckedPair, type CheckMatrix, checkMatrix } from './check/check-matrix.ts';
export {
  type CheckSide,
  checkDumpAgainstStream,
  checkStream,
  type StreamFacts,
  type StreamSection,
} from './check/check-stream.ts';
export {
  type CheckRule,
  checkRules,
  type Direction,
  type Finding,
  type Verdict,
  worstVerdict,
} from './check/finding.ts';
export {
  addKnown,
  builtInKnown,
  compareReleases,
  type Known,
  type KnownCondition,
} from './check/known.ts';
export {
  type DecodeOptions,
  Description,
  describe,
  type SaveOptions,
  type StateOf,
} from './description.ts';
export {
  type DescriptionSpec,
  MIGRATION_PRIORITIES,
  type MigrationPriority,
} from './description-spec.ts';
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
export {
  type Field,
  type FieldOptions,
  field,
  type TestedFieldOptions,
  validate,
} from './field.ts';
export { formatVmdesc, VMDESC_STYLES, type VmdescStyle } from './format-vmdesc.ts';
export type {
  ArrayOf,
  FixedKind,
  InlineCode,
  InlineField,
  InlineStruct,
  Kind,
  LoadContext,
  VariableKind,
  VmdescDetail,
} from './kind.ts';
export {
  bool,
  cpuDouble,
  type EqualOptions,
  equal,
  float64,
  i8,
  i16,
  i32,
  i32AtMost,
  i64,
  lessThan,
  timer,
  u8,
  u16,
  u32,
  u64,
} from './kinds.ts';
export {
  type GtreeEntry,
  gtree,
  gtreeOfNumbers,
  type ListOptions,
  qlist,
  qtailq,
} from './list-kinds.ts';
export { pointer, struct, vstruct } from './struct-kinds.ts';
export { type TmpKind, type TmpOptions, tmp } from './tmp.ts';
export {
  decodeWithVmdesc,
  decodeWithVmdescPartially,
  type PartialState,
} from './tree/decode-with-vmdesc.ts';
export { describeState } from './tree/describe-state.ts';
export { addSubsection, dropSubsection, setState } from './tree/edit-state.ts';
export { encodeState } from './tree/encode-state.ts';
export type { Schema, SectionHead } from './tree/schema.ts';
export { schemaFromDump } from './tree/schema-from-dump.ts';
export { schemaFromVmdesc } from './tree/schema-from-vmdesc.ts';
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
