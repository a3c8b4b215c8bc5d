import { type QapiValue, QmpCommandError } from '@wherry/qmp';
import { loadTlsCredentials, type TlsCredentials, TransportError } from '@wherry/transport';
import { InvalidArgumentError } from 'commander';
import type { HostSchema } from './host-schema.ts';

/** A QEMU object, as `object-add` takes it: of its kinds a host has TLS credentials. */
export type HostObject = QapiValue<HostSchema, 'ObjectOptions'>;

/** The objects of a host, by their ids; texts of refusals are QEMU's. */
export class HostObjects {
  readonly #credentials = new Map<string, TlsCredentials>();

  /**
   * Makes an object: reads its files.
   *
   * @throws QmpCommandError for an id that is taken, a property that it has not, files that are not good
   */
  async add(object: HostObject): Promise<void> {
    const { id, dir, endpoint = 'client', username } = object;
    const kind = object['qom-type'] === 'tls-creds-psk' ? 'psk' : 'x509';
    this.#checkFree(id);
    if (!/^[a-z][\w.-]*$/i.test(id)) throw refused("Parameter 'id' expects an identifier");
    if (dir === undefined) throw refused("Missing 'dir' property value");
    for (const name of ['priority', 'passwordid'] as const) {
      if (object[name] !== undefined) {
        throw refused(`Property '${name}' is not supported by this host`);
      }
    }
    const other = kind === 'psk' ? 'sanity-check' : 'username';
    if (object[other] !== undefined) {
      throw refused(`Property '${object['qom-type']}.${other}' not found`);
    }
    if (username !== undefined && endpoint === 'server') {
      throw refused('username should not be set when endpoint=server');
    }
    const credentials = await load({
      ...{ dir, endpoint, kind, username },
      verifyPeer: object['verify-peer'],
      sanityCheck: object['sanity-check'],
    });
    this.#checkFree(id); // another one may have been quicker
    this.#credentials.set(id, credentials);
  }

  /** Removes an object; connections that were made with it go on. @throws QmpCommandError */
  delete(id: string): void {
    if (!this.#credentials.delete(id)) throw refused(`object '${id}' not found`);
  }

  /** Finds the credentials that `tls-creds` names. @throws QmpCommandError */
  credentials(id: string, endpoint: 'client' | 'server'): TlsCredentials {
    const credentials = this.#credentials.get(id);
    if (credentials === undefined) throw refused(`No TLS credentials with id '${id}'`);
    if (credentials.endpoint !== endpoint) {
      throw refused(`Expected TLS credentials for a ${endpoint} endpoint`);
    }
    return credentials;
  }

  #checkFree(id: string): void {
    if (!this.#credentials.has(id)) return;
    throw refused(`attempt to add duplicate property '${id}' to object (type 'container')`);
  }
}

async function load(options: Parameters<typeof loadTlsCredentials>[0]): Promise<TlsCredentials> {
  try {
    return await loadTlsCredentials(options);
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw refused(error.message);
  }
}

function refused(desc: string): QmpCommandError {
  return new QmpCommandError('GenericError', desc);
}

const STRINGS = ['id', 'dir', 'username', 'priority', 'passwordid'];
const SWITCHES = ['verify-peer', 'sanity-check'];

/** Reads an object as QEMU's `-object` has it: `TYPE,id=ID,dir=DIR,…`. @throws InvalidArgumentError */
export function parseObject(text: string): HostObject {
  // A comma in a value is doubled.
  const parts = text.match(/(?:[^,]|,,)+/g) ?? [];
  const [type, ...settings] = parts.map((part) => part.replaceAll(',,', ','));
  if (type !== 'tls-creds-x509' && type !== 'tls-creds-psk') {
    throw new InvalidArgumentError(
      `'${type}' is no kind of object here: tls-creds-x509, tls-creds-psk.`,
    );
  }
  const properties: Record<string, string | boolean> = {};
  for (const setting of settings) {
    const [, name = setting, value = ''] = /^([^=]*)=(.*)$/s.exec(setting) ?? [];
    if (STRINGS.includes(name)) properties[name] = value;
    else if (name === 'endpoint' && (value === 'client' || value === 'server')) {
      properties[name] = value;
    } else if (SWITCHES.includes(name) && (value === 'on' || value === 'off')) {
      properties[name] = value === 'on';
    } else throw new InvalidArgumentError(`'${setting}' is no property of ${type}.`);
  }
  if (properties['id'] === undefined) throw new InvalidArgumentError("Parameter 'id' is missing.");
  return { ...properties, 'qom-type': type } as unknown as HostObject;
}
