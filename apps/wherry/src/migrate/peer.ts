import { type QapiReturn, QmpClient, QmpCommandError } from '@wherry/qmp';
import type { HostSchema } from '../host/host-schema.ts';
import { formatQmpAddress, openQmpChannel, type QmpAddress } from '../qmp-socket.ts';

export type GuestReport = QapiReturn<HostSchema, 'x-wherry-guest'>;
export type HandoverReport = QapiReturn<HostSchema, 'x-wherry-handover'>;
export type MigrationReport = QapiReturn<HostSchema, 'query-migrate'>;

/** One end of a migration, real or simulated, behind its QMP socket. */
export class Peer {
  readonly name: string;
  readonly client: QmpClient<HostSchema>;
  /** Whether it answers the simulated host's own commands. */
  readonly isSimulated: boolean;
  readonly #capabilities: ReadonlySet<string>;
  readonly #major: number;

  private constructor(
    name: string,
    client: QmpClient<HostSchema>,
    commands: ReadonlySet<string>,
    capabilities: ReadonlySet<string>,
  ) {
    this.name = name;
    this.client = client;
    this.isSimulated = commands.has('x-wherry-guest');
    this.#capabilities = capabilities;
    this.#major = Number(client.greeting.version.qemu.major);
  }

  /** Connects and learns what the host can do. */
  static async connect(address: QmpAddress): Promise<Peer> {
    const channel = await openQmpChannel(address);
    const client = await QmpClient.connect<HostSchema>(channel, { timeoutMs: 10_000 });
    const commands = await client.execute('query-commands');
    const capabilities = await client.execute('query-migrate-capabilities');
    return new Peer(
      formatQmpAddress(address),
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
    await this.client.execute('migrate-set-capabilities', { capabilities });
  }

  /** Makes it listen; from 10.0 on it stays for questions when the migration fails. */
  async listen(uri: string): Promise<void> {
    const stay = this.#major >= 10 ? { 'exit-on-error': false } : {};
    await this.client.execute('migrate-incoming', { uri, ...stay });
  }

  async migration(): Promise<MigrationReport> {
    return this.client.execute('query-migrate');
  }

  /** What the guest's vCPUs saw; undefined for a real QEMU. */
  async guest(): Promise<GuestReport | undefined> {
    return this.isSimulated ? this.client.execute('x-wherry-guest') : undefined;
  }

  /** Lets the vCPUs check all their pages; undefined for a real QEMU. */
  async verify(): Promise<GuestReport | undefined> {
    return this.isSimulated
      ? this.client.execute('x-wherry-verify', {}, { timeoutMs: 600_000 })
      : undefined;
  }

  close(): void {
    this.client.close();
  }
}

/** Tells whether a command was refused by the host, rather than lost. */
export function isRefusal(error: unknown): error is QmpCommandError {
  return error instanceof QmpCommandError;
}
