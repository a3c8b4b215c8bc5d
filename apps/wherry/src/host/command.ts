import { QmpServer } from '@wherry/qmp';
import { Command, InvalidArgumentError, Option } from 'commander';
import { CliError } from '../cli-error.ts';
import { formatQmpAddress, listenForQmp, parseQmpAddress } from '../qmp-socket.ts';
import { formatBytes, formatCount } from '../sizes.ts';
import { type AddedDevice, DRIVER_NAMES, parseAddedDevice } from './added-devices.ts';
import {
  type BlockOptions,
  type DiskDevice,
  isDiskDevice,
  parseBlockdev,
  parseDiskDevice,
  parseDrive,
} from './block-options.ts';
import { describeViolation } from './describe-violation.ts';
import { addGuestOptions, type GuestOptions } from './guest-options.ts';
import { Host } from './host.ts';
import { hostCommands } from './host-commands.ts';
import { type HostObject, parseObject } from './host-objects.ts';
import { type HostSchema, hostSchema } from './host-schema.ts';
import { HOST_FEATURES, type HostFeature, unservedBlocks } from './postcopy-support.ts';

/** The release whose protocol and QMP the simulated host follows. */
const EMULATED_RELEASE = { major: 10, minor: 0, micro: 0 };

interface HostCommandOptions extends GuestOptions, Pick<BlockOptions, 'blockdev' | 'drive'> {
  readonly qmp: string;
  readonly incoming?: string;
  readonly paused?: true;
  readonly device: readonly (AddedDevice | DiskDevice)[];
  readonly onlyMigratable?: true;
  readonly memPrealloc?: true;
  readonly uuid?: string;
  readonly object: readonly HostObject[];
  readonly without: readonly HostFeature[];
}

/** `wherry host`: one simulated host. */
export function hostCommand(): Command {
  const command = new Command('host')
    .summary('start a simulated host: a guest behind a QMP socket')
    .description(
      'Starts one simulated host: a process with a QMP socket and a guest whose vCPUs run and check every page.\nIt ends on `quit`, Ctrl-C or SIGTERM; exit code 1 if a vCPU saw a lost or stale page.',
    )
    .requiredOption('--qmp <address>', 'QMP socket: unix:PATH or tcp:HOST:PORT')
    .option('--incoming <uri>', 'wait for a migration: a URI, or `defer` for migrate-incoming')
    .option('-S, --paused', 'do not start the guest until `cont`');
  addGuestOptions(command);
  command
    .addOption(
      new Option(
        '--device <driver>',
        `a device more, repeatable: ${DRIVER_NAMES.join(', ')}; then [,addr=SLOT]. All block migration but wherry-testdev, whose hook fails: [,fail=pre_save|post_save|pre_load|post_load], and that has so much state: [,state=SIZE]. And virtio-blk-pci,drive=NAME[,id=ID]: the disk of the guest’s own`,
      )
        .argParser(collect(parseDevice))
        .default([], 'none'),
    )
    .addOption(
      new Option(
        '--blockdev <node>',
        'a block node, repeatable: driver=qcow2|raw|copy-on-read|null-co,node-name=N, then file.driver=file,file.filename=F or file=NODE, [,backing=…] [,read-only=on] [,size=S], or JSON',
      )
        .argParser(collect(parseBlockdev))
        .default([], 'none'),
    )
    .addOption(
      new Option(
        '--drive <disk>',
        'an image with a device’s end, repeatable: file=F,format=qcow2|raw,if=none,id=ID [,node-name=N] [,readonly=on]',
      )
        .argParser(collect(parseDrive))
        .default([], 'none'),
    )
    .addOption(
      new Option(
        '--uuid <uuid>',
        "the guest's UUID, by which a multifd channel is told from another guest's (default: zeroes)",
      ).argParser(parseUuid),
    )
    .addOption(
      new Option(
        '--object <object>',
        'TLS credentials, repeatable: tls-creds-x509 or tls-creds-psk, then ,id=ID,dir=DIR [,endpoint=client|server] [,verify-peer=off] [,sanity-check=off] [,username=U]',
      )
        .argParser((text, previous: HostObject[]) => [...previous, parseObject(text)])
        .default([], 'none'),
    )
    .option('--only-migratable', 'do not start a guest that cannot be migrated')
    .option('--mem-prealloc', 'have the system give memory to all RAM at the start')
    .addOption(
      new Option(
        '--without <feature>',
        `a feature of its kernel that this host lacks, repeatable: ${HOST_FEATURES.join(', ')}; as a destination it refuses postcopy-ram then`,
      )
        .argParser((text, previous: HostFeature[]) => [...previous, parseFeature(text)])
        .default([], 'none'),
    );
  command.addHelpText(
    'after',
    `
Example:
  $ wherry host --qmp unix:/tmp/a.qmp --ram pc.ram=1G --vcpu hotset,rate=50000
  $ wherry host --qmp unix:/tmp/b.qmp --ram pc.ram=1G --incoming defer
  $ wherry migrate unix:/tmp/a.qmp unix:/tmp/b.qmp tcp:127.0.0.1:0`,
  );
  return command.action(runHost);
}

function parseUuid(text: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('A UUID is 32 hexadecimal digits in groups of 8-4-4-4-12.');
}

function parseDevice(text: string): AddedDevice | DiskDevice {
  return isDiskDevice(text) ? parseDiskDevice(text) : parseAddedDevice(text);
}

/** Gathers the values of an option that may be repeated. */
function collect<T>(parse: (text: string) => T): (text: string, previous: T[]) => T[] {
  return (text, previous) => {
    try {
      return [...previous, parse(text)];
    } catch (error) {
      if (error instanceof RangeError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

/** @throws CliError */
function disksOf({ blockdev, drive, device }: HostCommandOptions): BlockOptions {
  const [disk, another] = device.filter((added): added is DiskDevice => 'drive' in added);
  if (another !== undefined) throw new CliError('The guest has one disk: one drive= is enough', 2);
  return { blockdev, drive, disk };
}

function parseFeature(text: string): HostFeature {
  const feature = HOST_FEATURES.find((name) => name === text);
  if (feature !== undefined) return feature;
  throw new InvalidArgumentError(`'${text}' is none of ${HOST_FEATURES.join(', ')}.`);
}

async function runHost(options: HostCommandOptions): Promise<void> {
  const address = parseQmpAddress(options.qmp);
  const ended = Promise.withResolvers<number>();
  let server: QmpServer<HostSchema> | undefined;
  let socket: Awaited<ReturnType<typeof listenForQmp>> | undefined;
  const host = await Host.create({
    machine: {
      machineType: options.machine,
      blocks: options.ram,
      vcpus: options.vcpu,
      fill: options.fill,
      seed: options.seed,
      incoming: options.incoming !== undefined,
    },
    devices: options.device.filter((device): device is AddedDevice => !('drive' in device)),
    disks: disksOf(options),
    onlyMigratable: options.onlyMigratable === true,
    ...(options.uuid === undefined ? {} : { uuid: options.uuid }),
    postcopy: {
      lacks: new Set(options.without),
      unservedBlocks: unservedBlocks(options.ram),
    },
    preallocate: options.memPrealloc === true,
    sharedFiles: new Map(
      options.ram.flatMap(({ name, memPath }) => (memPath === undefined ? [] : [[name, memPath]])),
    ),
    paused: options.paused === true,
    onEvent: (event) => {
      switch (event.name) {
        case 'MIGRATION':
          return server?.emit(event.name, { status: event.status });
        case 'MIGRATION_PASS':
          return server?.emit(event.name, { pass: event.pass });
        case 'BLOCK_JOB_READY':
        case 'BLOCK_JOB_COMPLETED':
        case 'BLOCK_JOB_CANCELLED':
          return server?.emit(event.name, event.data);
        default:
          return server?.emit(event.name);
      }
    },
    onWarning: (message) => console.error(`wherry host: ${message}`),
    onIncomingFailed: (error) => {
      console.error(`wherry host: the incoming migration failed: ${error.message}`);
      ended.resolve(1);
    },
    onVcpuFailed: (error) => {
      console.error(`wherry host: a vCPU died: ${error.message}`);
      ended.resolve(1);
    },
  });
  const quit = (reason: 'host-qmp-quit' | 'host-signal'): void => {
    server?.emit('SHUTDOWN', { guest: false, reason });
    ended.resolve(0);
  };
  try {
    for (const object of options.object) await addObject(host, object);
    server = new QmpServer<HostSchema>({
      schema: hostSchema,
      version: { qemu: EMULATED_RELEASE, package: 'wherry' },
      commands: hostCommands(host, () => quit('host-qmp-quit')),
    });
    const accept = server.accept.bind(server);
    socket = await listenForQmp(address, accept);
    const onSignal = (): void => quit('host-signal');
    process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
    process.once('disconnect', onSignal); // started by `wherry demo`, which has died
    process.channel?.unref();
    if (options.incoming !== undefined && options.incoming !== 'defer') {
      await host.migrateIncoming(options.incoming, true).catch((error: Error) => {
        throw new CliError(error.message, 2);
      });
    }
    console.log(describeHost(options, formatQmpAddress(socket.qmpAddress)));
    const status = await ended.promise;
    const { violations, firstViolations } = await host.guest.machine.witness();
    for (const violation of firstViolations) {
      console.error(`wherry host: violation: ${describeViolation(violation)}`);
    }
    process.exitCode = violations > 0 ? 1 : status;
  } finally {
    socket?.close();
    server?.close();
    await host.close();
  }
}

/** @throws CliError */
async function addObject(host: Host, object: HostObject): Promise<void> {
  try {
    await host.channels.objects.add(object);
  } catch (error) {
    throw new CliError(`--object ${object.id}: ${(error as Error).message}`, 2);
  }
}

function describeHost(options: HostCommandOptions, qmp: string): string {
  const total = options.ram.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const vcpus = options.vcpu.map(({ workload, pagesPerSecond }) =>
    workload === 'idle'
      ? workload
      : `${workload} ${Number.isFinite(pagesPerSecond) ? `${formatCount(pagesPerSecond)} pages/s` : 'unlimited'}`,
  );
  const blocks = options.ram.map(
    ({ name, lengthBytes, hostPageBytes }) =>
      `${name} ${formatBytes(lengthBytes)} of ${formatBytes(hostPageBytes)} pages`,
  );
  return [
    `wherry host ready, QMP at ${qmp}`,
    `${options.machine}, ${formatBytes(total)}: ${blocks.join(', ')}`,
    `vCPUs: ${vcpus.join(', ')}${options.incoming === undefined ? '' : `; waiting for a migration (${options.incoming})`}`,
  ].join('\n');
}
