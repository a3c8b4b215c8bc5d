import { formatOffset } from '@wherry/bytes';
import type { ContainerModel, DecodedDevice, LocatedModel, StreamModel } from '@wherry/snapshot';
import { decodeDevices, noteWithout } from '@wherry/snapshot';
import { formatBytes } from '../sizes.ts';
import { diagnose } from './diagnosis.ts';
import { formatItems } from './report-items.ts';
import type { ReportOptions } from './report-options.ts';
import { formatRam } from './report-ram.ts';
import { formatTree } from './report-tree.ts';
import { formatValue } from './report-value.ts';
import { formatUuid } from './uuid.ts';

/** Writes what a stream holds for people, line by line. */
export function* formatReport(model: StreamModel, options: ReportOptions): Generator<string> {
  const { container, version, items } = model;
  const { packed } = options;
  if (container === undefined && version === undefined && items.length === 0) return;
  if (container !== undefined) yield* formatContainer(container);
  if (packed !== undefined) yield `Unpacked from ${packed}: offsets count in what came out`;
  if (version !== undefined) {
    const at =
      model.streamOffset === undefined
        ? ''
        : `, at ${formatOffset(model.streamOffset)} (cause STREAM_BEGINS_LATER)`;
    yield `Migration stream, version ${version}${at}`;
    yield* formatConfiguration(model);
    yield* formatSchema(model, options);
  } else if (model.isRecovery === true) {
    yield 'Connection of a postcopy recovery: it has no header';
  } else {
    return;
  }
  yield* formatRam(model, options);
  yield* formatLive(model);
  if (options.isShown === undefined) {
    yield '';
    yield 'Items in their order';
    yield* formatItems(model);
  }
  yield* formatDevices(model, options);
  yield* formatEnd(model);
}

/** Says what the byte is that was asked for. */
export function* formatLocated(located: LocatedModel): Generator<string> {
  const { offset, path, what, range, value } = located;
  yield `Byte ${formatOffset(offset)}`;
  yield `  is        ${what}`;
  yield `  in        ${path.join(' > ')}`;
  const { lengthBytes } = range;
  const end = range.offset + lengthBytes;
  yield `  range     ${formatOffset(range.offset)} to ${formatOffset(end)}, ${lengthBytes} byte${lengthBytes === 1 ? '' : 's'}`;
  if (value === undefined) return;
  const text =
    typeof value === 'string'
      ? JSON.stringify(value)
      : formatValue({ name: '', type: '', offset, lengthBytes, value });
  yield `  value     ${text}`;
}

function* formatContainer(container: ContainerModel): Generator<string> {
  const { version, compression, wasRunning, isPartial, xml, streamOffset } = container;
  yield `libvirt save image, version ${version}`;
  const [, name] = /<name>([^<]*)<\/name>/.exec(xml) ?? [];
  if (name !== undefined) yield `Domain           ${name}`;
  yield `Guest            ${wasRunning ? 'was running' : 'was paused'}`;
  if (isPartial) yield 'Unfinished       libvirt had not written all of it';
  const packed = compression === 'raw' ? 'not compressed' : compression;
  yield `Stream           ${packed}, at ${formatOffset(streamOffset)}`;
  yield '';
}

function* formatConfiguration({ configuration }: StreamModel): Generator<string> {
  if (configuration === undefined) {
    yield 'Machine type     not stated (no configuration section)';
    return;
  }
  const { machineType, targetPageBits, capabilities, uuid } = configuration;
  yield `Machine type     ${machineType}`;
  if (targetPageBits !== undefined) yield `Target page      ${2 ** targetPageBits} bytes`;
  if (capabilities !== undefined) yield `Capabilities     ${capabilities.join(', ')}`;
  if (uuid !== undefined) yield `UUID             ${formatUuid(uuid)}`;
}

function* formatSchema(
  { configuration }: StreamModel,
  { schemaMachineType: machineType }: ReportOptions,
): Generator<string> {
  if (machineType === undefined) return;
  const isSame = configuration === undefined || configuration.machineType === machineType;
  yield `Schema           of machine type ${machineType}${isSame ? '' : ', which is another one (cause MACHINE_TYPE)'}`;
}

function* formatLive({ dirtyBitmaps = [], liveSections }: StreamModel): Generator<string> {
  if (dirtyBitmaps.length > 0) {
    yield '';
    yield 'Dirty bitmaps';
  }
  for (const bitmap of dirtyBitmaps) {
    const { node, name, granularityBytes, setBits, coveredBytes, enabled, persistent } = bitmap;
    const marks = [
      enabled ? '' : 'disabled',
      persistent ? 'persistent' : '',
      bitmap.isComplete ? '' : 'not complete',
    ].filter((mark) => mark !== '');
    yield `  ${node}/${name}: ${setBits} bits of ${formatBytes(granularityBytes)} set, over ${formatBytes(coveredBytes)}${marks.length > 0 ? ` (${marks.join(', ')})` : ''}`;
  }
  const others = liveSections.filter(({ idstr }) => idstr !== 'dirty-bitmap');
  if (others.length > 0) {
    yield '';
    yield 'Live sections';
  }
  for (const { idstr, instanceId, version, bodyBytes, summary } of others) {
    const facts = Object.entries(summary ?? {}).map(([name, value]) => `${name} ${value}`);
    yield `  ${idstr}, instance ${instanceId}, version ${version}, ${bodyBytes} bytes${facts.length > 0 ? `: ${facts.join(', ')}` : ''}`;
  }
}

function* formatDevices(
  model: StreamModel,
  { isShown, schema, onMismatch }: ReportOptions,
): Generator<string> {
  if (model.devices.length === 0) return;
  const isDecodable = model.vmdesc !== undefined || schema !== undefined;
  let shown = 0;
  yield '';
  yield `Devices: ${model.devices.length}${isDecodable ? '' : `, ${noteWithout(model)}`}`;
  for (const decoded of decodeDevices(model, { schema })) {
    if (decoded.mismatch !== undefined) onMismatch(diagnose(decoded.mismatch, []));
    if (isShown !== undefined && !isShown(decoded.device.idstr)) continue;
    shown++;
    yield* formatDevice(decoded, isDecodable);
  }
  if (shown === 0) yield '  none of them matches --device';
}

function* formatDevice(decoded: DecodedDevice, isDecodable: boolean): Generator<string> {
  const { device, state, note, mismatch } = decoded;
  const { idstr, instanceId, version, offset, bodyLengthBytes, sectionId } = device;
  yield `  ${idstr}, instance ${instanceId}, version ${version} (section ${sectionId}, ${bodyLengthBytes} bytes at 0x${offset.toString(16)})`;
  if (state !== undefined) yield* formatTree(state, '    ');
  if (note !== undefined && isDecodable) yield `    ${note}`;
  if (mismatch !== undefined) yield `    breaks here: ${mismatch.message}`;
}

function* formatEnd(model: StreamModel): Generator<string> {
  yield '';
  const { eofOffset, endOffset, vmdesc, trailingBytes } = model;
  if (endOffset === undefined || eofOffset === undefined) {
    yield 'The stream breaks off here.';
    return;
  }
  const description =
    vmdesc === undefined ? 'no vmdesc' : `then the vmdesc, ${vmdesc.lengthBytes} bytes`;
  yield `The stream ends at ${formatOffset(endOffset)}: EOF at ${formatOffset(eofOffset)}, ${description}.`;
  yield trailingBytes === 0
    ? 'Nothing follows it.'
    : `${trailingBytes} bytes follow it that do not belong to it (cause TRAILING_BYTES).`;
}
