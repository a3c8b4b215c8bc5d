import { isJsonObject, JsonDouble, narrow, withoutDoubles } from './json-value.ts';
import { QmpCommandError, QmpError } from './qmp-error.ts';
import type {
  QapiBuiltins,
  QapiCommand,
  QapiDefinition,
  QapiMembers,
  QapiSchema,
  QapiTypeRef,
  QapiUnion,
} from './schema.ts';

function refuse(desc: string): never {
  throw new QmpCommandError('GenericError', desc);
}

function refuseType(path: string, expected: string): never {
  refuse(`Invalid parameter type for '${path}', expected: ${expected}`);
}

const SIGNED_BITS: Readonly<Record<string, number>> = { int8: 8, int16: 16, int32: 32 };
const UNSIGNED_BITS: Readonly<Record<string, number>> = { uint8: 8, uint16: 16, uint32: 32 };
const BUILTINS: Readonly<Record<keyof QapiBuiltins, true>> = {
  str: true,
  bool: true,
  number: true,
  null: true,
  any: true,
  int: true,
  int8: true,
  int16: true,
  int32: true,
  int64: true,
  uint8: true,
  uint16: true,
  uint32: true,
  uint64: true,
  size: true,
};

const INT64_MAX = 0x7fff_ffff_ffff_ffffn;

function isInteger(value: unknown): value is number | bigint {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
}

function isOptional(member: string): boolean {
  return member.startsWith('*');
}

function bareName(member: string): string {
  return isOptional(member) ? member.slice(1) : member;
}

/**
 * Checks values against a schema: what QEMU's generated visitors do, in the same order and with the
 * same texts.
 *
 * @see QEMU qapi/qobject-input-visitor.c, qapi/qapi-visit-core.c
 */
export class SchemaChecker {
  readonly #schema: QapiSchema;

  /** @throws QmpError `SCHEMA` when a type is named that the schema does not define */
  constructor(schema: QapiSchema) {
    this.#schema = schema;
    for (const [name, definition] of Object.entries(schema.types ?? {})) {
      this.#checkDefinition(name, definition);
    }
    for (const [name, command] of Object.entries(schema.commands ?? {})) {
      const { data, returns } = command;
      if (typeof data === 'string') this.#checkRef(data, name);
      else this.#checkMembers(data ?? {}, name);
      if (returns !== undefined) this.#checkRef(returns, name);
    }
    for (const [name, event] of Object.entries(schema.events ?? {})) {
      this.#checkMembers(event.data ?? {}, name);
    }
  }

  command(name: string): QapiCommand | undefined {
    const commands = this.#schema.commands ?? {};
    return Object.hasOwn(commands, name) ? commands[name] : undefined;
  }

  /**
   * Checks a command's arguments.
   *
   * @returns a copy that holds the schema's members only
   * @throws QmpCommandError `GenericError` with QEMU's text for the first fault
   */
  arguments(command: QapiCommand, value: unknown): Record<string, unknown> {
    const { data } = command;
    if (typeof data === 'string') return this.#object(data, value, '');
    return this.#struct(data ?? {}, value, '');
  }

  /**
   * Checks a value of any type of the schema.
   *
   * @param path where the value stands, for the error's text
   * @throws QmpCommandError `GenericError` with QEMU's text for the first fault
   */
  value(ref: QapiTypeRef, value: unknown, path: string): unknown {
    return this.#value(ref, value, path, path);
  }

  #definition(name: string): QapiDefinition | undefined {
    const types = this.#schema.types ?? {};
    return Object.hasOwn(types, name) ? types[name] : undefined;
  }

  #checkRef(ref: QapiTypeRef, owner: string): void {
    const name = typeof ref === 'string' ? ref : ref[0];
    if (Object.hasOwn(BUILTINS, name) || this.#definition(name) !== undefined) return;
    throw new QmpError('SCHEMA', `'${owner}' names the type '${name}', which is not defined`, {
      expected: 'a built-in type or one of the schema',
      found: name,
    });
  }

  #checkMembers(members: QapiMembers, owner: string): void {
    for (const ref of Object.values(members)) this.#checkRef(ref, owner);
  }

  #checkDefinition(name: string, definition: QapiDefinition): void {
    if ('struct' in definition) this.#checkMembers(definition.struct, name);
    if ('alternate' in definition) this.#checkRef(definition.alternate[1], name);
    if ('union' in definition) {
      this.#checkRef(definition.by, name);
      for (const branch of Object.values(definition.union)) this.#checkRef(branch, name);
    }
  }

  /** `name` is undefined for a list's element: some of QEMU's texts then say `null`. */
  #value(ref: QapiTypeRef, value: unknown, path: string, name: string | undefined): unknown {
    if (typeof ref !== 'string') {
      if (!Array.isArray(value)) refuseType(path, 'array');
      return value.map((element, i) => this.#value(ref[0], element, `${path}[${i}]`, undefined));
    }
    const definition = this.#definition(ref);
    if (definition === undefined) return this.#builtin(ref, value, path, name);
    if ('enum' in definition) {
      if (typeof value !== 'string') refuseType(path, 'string');
      if (definition.enum.includes(value)) return value;
      refuse(`Parameter '${name ?? 'null'}' does not accept value '${value}'`);
    }
    if ('alternate' in definition) {
      const [, other] = definition.alternate;
      if (typeof value === 'string') return value;
      if (other === 'null' ? value === null : isJsonObject(value)) {
        return this.#value(other, value, path, name);
      }
      refuseType(name ?? 'null', ref);
    }
    return this.#object(ref, value, path);
  }

  #builtin(type: string, value: unknown, path: string, name: string | undefined): unknown {
    switch (type) {
      case 'str':
        return typeof value === 'string' ? value : refuseType(path, 'string');
      case 'bool':
        return typeof value === 'boolean' ? value : refuseType(path, 'boolean');
      case 'null':
        return value === null ? value : refuseType(path, 'null');
      case 'number':
        if (value instanceof JsonDouble) return value.value;
        if (typeof value === 'bigint') return Number(value);
        return typeof value === 'number' ? value : refuseType(path, 'number');
      case 'any':
        return withoutDoubles(value);
      case 'uint64':
      case 'size':
        return this.#unsigned(value, path);
    }
    const unsignedBits = UNSIGNED_BITS[type];
    if (unsignedBits !== undefined) {
      const integer = this.#unsigned(value, path);
      if (integer < 2 ** unsignedBits) return integer;
      refuse(`Parameter '${name ?? 'null'}' expects ${type}_t`);
    }
    if (!isInteger(value) || value > INT64_MAX) refuseType(path, 'integer');
    const signedBits = SIGNED_BITS[type];
    const limit = signedBits === undefined ? 2 ** 63 : 2 ** (signedBits - 1);
    if (value >= -limit && value <= limit - 1) return value;
    refuse(`Parameter '${name ?? 'null'}' expects ${type}_t`);
  }

  /** Takes a negative 64-bit integer as its two's complement, as QEMU still does. */
  #unsigned(value: unknown, path: string): number | bigint {
    if (!isInteger(value)) refuse(`Parameter '${path}' expects uint64`);
    return value < 0 ? narrow(BigInt.asUintN(64, BigInt(value))) : value;
  }

  #object(ref: string, value: unknown, path: string): Record<string, unknown> {
    if (!isJsonObject(value)) refuseType(path, 'object');
    const out: Record<string, unknown> = {};
    this.#members(ref, value, path, out);
    this.#refuseOthers(value, out, path);
    return out;
  }

  #struct(members: QapiMembers, value: unknown, path: string): Record<string, unknown> {
    if (!isJsonObject(value)) refuseType(path, 'object');
    const out: Record<string, unknown> = {};
    this.#structMembers(members, value, path, out);
    this.#refuseOthers(value, out, path);
    return out;
  }

  /** Takes the members of a struct or of a union, whose branch may be a union again. */
  #members(
    ref: string,
    object: Record<string, unknown>,
    path: string,
    out: Record<string, unknown>,
  ): void {
    const definition = this.#definition(ref);
    if (definition !== undefined && 'struct' in definition) {
      this.#structMembers(definition.struct, object, path, out);
    } else if (definition !== undefined && 'union' in definition) {
      this.#unionMembers(definition, object, path, out);
    } else {
      throw new QmpError('SCHEMA', `'${ref}' is no struct and no union, so it has no members`);
    }
  }

  #unionMembers(
    definition: QapiUnion,
    object: Record<string, unknown>,
    path: string,
    out: Record<string, unknown>,
  ): void {
    const { discriminator, by, union } = definition;
    this.#structMembers({ [discriminator]: by }, object, path, out);
    const branch = union[out[discriminator] as string];
    if (branch !== undefined) this.#members(branch, object, path, out);
  }

  #structMembers(
    members: QapiMembers,
    object: Record<string, unknown>,
    path: string,
    out: Record<string, unknown>,
  ): void {
    for (const [key, ref] of Object.entries(members)) {
      const name = bareName(key);
      const memberPath = path === '' ? name : `${path}.${name}`;
      if (Object.hasOwn(object, name)) {
        out[name] = this.#value(ref, object[name], memberPath, name);
      } else if (!isOptional(key)) {
        refuse(`Parameter '${memberPath}' is missing`);
      }
    }
  }

  #refuseOthers(object: Record<string, unknown>, taken: object, path: string): void {
    for (const name of Object.keys(object)) {
      if (!Object.hasOwn(taken, name)) {
        refuse(`Parameter '${path === '' ? name : `${path}.${name}`}' is unexpected`);
      }
    }
  }
}
