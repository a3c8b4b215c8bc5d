import {
  type MigrationParameters,
  type QapiReturn,
  QmpClient,
  QmpCommandError,
  QmpError,
  type StatusInfo,
} from '@wherry/qmp';
import type { HostSchema } from '../host/host-schema.ts';
import { openQmpChannel, type QmpAddress } from '../qmp-socket.ts';

export type GuestReport = QapiReturn<HostSchema, 'x-wherry-guest'>;
export type MigrationReport = QapiReturn<HostSchema, 'query-migrate'>;

/** How long a host may take to answer: longer, and it counts as lost. */
const ANSWER = { timeoutMs: 10_000 };
/** How long a host may take over all its pages. */
export const ALL_PAGES: { readonly timeoutMs: number } = { timeoutMs: 600_000 };

/** One end of a migration, real or simulated, behind its QMP socket. */
export class Peer {
  readonly client: QmpClient<HostSchema>;
  /** Whether it answers the simulated host's own commands. */
  readonly isSimulated: boolean;
  readonly #capabilities: ReadonlySet<string>;
  readonly #major: number;

  readonly #address: QmpAddress;

  private constructor(
    address: QmpAddress,
    client: QmpClient<HostSchema>,
    commands: ReadonlySet<string>,
    capabilities: ReadonlySet<string>,
  ) {
    this.#address = address;
    this.client = client;
    this.isSimulated = commands.has('x-wherry-guest');
    this.#capabilities = capabilities;
    this.#major = Number(client.greeting.version.qemu.major);
  }

  /** Connects and learns what the host can do. */
  static async connect(address: QmpAddress): Promise<Peer> {
    const channel = await openQmpChannel(address);
    const client = await QmpClient.connect<HostSchema>(channel, ANSWER);
    const commands = await client.execute('query-commands', {}, ANSWER);
    const capabilities = await client.execute('query-migrate-capabilities', {}, ANSWER);
    return new Peer(
      address,
      client,
      new Set(commands.map(({ name }) => name)),
      new Set(capabilities.map(({ capability }) => capability)),
    );
  }

  /** Turns the named capabilities on and the others of these on/off switches off. */
  async setCapabilities(states: Readonly<Record<string, boolean>>): Promise<void> {
    const capabilities = Object.entries(states)
      .filter(([capability, state]) => state || this.#capabilities.has(capability))
      .map(([capability, state]) => ({ capability: capability as 'events', state }));
    await this.client.execute('migrate-set-capabilities', { capabilities }, ANSWER);
  }

  async setParameters(parameters: MigrationParameters): Promise<void> {
    await this.client.execute('migrate-set-parameters', parameters, ANSWER);
  }

  /** Makes it listen; from 10.0 on it stays for questions when the migration fails. */
  async listen(uri: string): Promise<void> {
    const stay = this.#major >= 10 ? { 'exit-on-error': false } : {};
    await this.client.execute('migrate-incoming', { uri, ...stay }, ANSWER);
  }

  /** Begins a migration to `uri`. */
  async migrate(uri: string): Promise<void> {
    await this.client.execute('migrate', { uri }, ANSWER);
  }

  async tell(command: 'migrate_cancel' | 'migrate-start-postcopy' | 'cont'): Promise<void> {
    await this.client.execute(command, {}, ANSWER);
  }

  async runState(): Promise<StatusInfo> {
    return this.client.execute('query-status', {}, ANSWER);
  }

  async migration(): Promise<MigrationReport> {
    return this.client.execute('query-migrate', {}, ANSWER);
  }

  /** What the guest's vCPUs saw; undefined for a real QEMU. */
  async guest(): Promise<GuestReport | undefined> {
    return this.isSimulated ? this.client.execute('x-wherry-guest', {}, ANSWER) : undefined;
  }

  /** Lets the vCPUs check all their pages; undefined for a real QEMU. */
  async verify(): Promise<GuestReport | undefined> {
    return this.isSimulated ? this.client.execute('x-wherry-verify', {}, ALL_PAGES) : undefined;
  }

  /** Whether its process has certainly ended: a lost connection alone may be the network's fault. */
  async isDead(): Promise<boolean> {
    if (!('path' in this.#address)) return false;
    try {
      // A process that is ending may still accept, but greets nobody.
      const channel = await openQmpChannel(this.#address);
      (await QmpClient.connect(channel, ANSWER)).close();
      return false;
    } catch (error) {
      return !(error instanceof QmpError && error.code === 'TIMEOUT');
    }
  }

  close(): void {
    this.client.close();
  }
}

/** Tells whether a command was refused by the host, rather than lost. */
export function isRefusal(error: unknown): error is QmpCommandError {
  return error instanceof QmpCommandError;
}
