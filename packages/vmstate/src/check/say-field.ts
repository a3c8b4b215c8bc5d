import type { TableField } from './table.ts';

export const DEVICE_OPTIONS =
  'Use the same machine type and device options on both sides, or a destination of the source’s release or newer.';

export function sayField(field: TableField): string {
  const { name, elementBytes, count, table, conditional, type } = field;
  const shape =
    table !== undefined
      ? `nested ${table.name}`
      : elementBytes !== undefined
        ? `${elementBytes} byte${elementBytes === 1 ? '' : 's'}`
        : 'of no fixed length';
  const times = count === undefined ? '' : ` × ${count}`;
  return `${name}: ${type !== undefined && table === undefined ? `${type}, ` : ''}${shape}${times}${conditional ? ', under a condition' : ''}`;
}

export function sayFields(fields: readonly TableField[]): string {
  const shown = fields.slice(0, 8).map(sayField).join('; ');
  return fields.length > 8 ? `${shown}; and ${fields.length - 8} more` : shown;
}

export function names(fields: readonly TableField[]): string {
  const shown = fields.slice(0, 4).map(({ name }) => name);
  return shown.join(', ') + (fields.length > 4 ? `, … (${fields.length} fields)` : '');
}
