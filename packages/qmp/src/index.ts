export {
  type BlockDeviceInfo,
  type BlockDirtyInfo,
  type BlockInfo,
  type BlockJobInfo,
  type BlockSchema,
  blockSchema,
  type TransactionAction,
} from './block-schema.ts';
export { createChannelPair, type QmpChannel } from './channel.ts';
export {
  QmpClient,
  type QmpCommandName,
  type QmpConnectOptions,
  type QmpEventName,
  type QmpEventOf,
  type QmpExecuteOptions,
  type QmpExecuteParameters,
  type QmpGreeting,
  type QmpReply,
  type QmpWaitOptions,
} from './client.ts';
export type { QmpEvent } from './client-events.ts';
export { type QmpClock, systemClock } from './clock.ts';
export {
  type CommandInfo,
  controlSchema,
  type QmpCapability,
  type VersionInfo,
  type WithControl,
} from './control-schema.ts';
export { type JsonItem, JsonStream, type JsonStreamOptions } from './json-stream.ts';
export { JsonDouble, toJsonText } from './json-value.ts';
export {
  type MigrationAddress,
  type MigrationCapability,
  type MigrationCapabilityStatus,
  type MigrationChannel,
  type MigrationInfo,
  type MigrationParameters,
  type MigrationSchema,
  type MigrationStats,
  type MigrationStatus,
  migrationSchema,
  type RunState,
  type ShutdownCause,
  type SocketAddress,
  type StatusInfo,
  type XbzrleCacheStats,
} from './migration-schema.ts';
export {
  QmpCommandError,
  QmpError,
  type QmpErrorClass,
  type QmpErrorCode,
  type QmpErrorDetails,
} from './qmp-error.ts';
export {
  mergeSchemas,
  type QapiAlternate,
  type QapiArguments,
  type QapiBuiltins,
  type QapiCommand,
  type QapiCommandName,
  type QapiDefinition,
  type QapiEnum,
  type QapiEvent,
  type QapiEventData,
  type QapiEventName,
  type QapiHasReturn,
  type QapiInt64,
  type QapiMembers,
  type QapiMerged,
  type QapiObject,
  type QapiReturn,
  type QapiSchema,
  type QapiStruct,
  type QapiTypeRef,
  type QapiUnion,
  type QapiValue,
} from './schema.ts';
export { SchemaChecker } from './schema-check.ts';
export {
  type QmpCommandContext,
  type QmpHandler,
  type QmpHandlers,
  QmpServer,
  type QmpServerOptions,
} from './server.ts';
export type { QmpDisconnectReason, QmpServerLimits } from './server-session.ts';
