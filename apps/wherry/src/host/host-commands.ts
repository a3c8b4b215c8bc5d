import { constants } from 'node:fs';
import type { WitnessReport } from '@wherry/machine';
import {
  CAPABILITIES,
  type MigrationInfo as Info,
  MigrationError,
  setCapabilities,
  setParameters,
} from '@wherry/migration';
import { QmpCommandError, type QmpHandlers } from '@wherry/qmp';
import { TransportError } from '@wherry/transport';
import { blockCommands } from './block-commands.ts';
import { describeViolation } from './describe-violation.ts';
import { digestDevices, digestRam } from './handover.ts';
import type { Host } from './host.ts';
import type { HostSchema } from './host-schema.ts';

/** Answers QMP for a host; `quit` ends the process. */
export function hostCommands(host: Host, quit: () => void): QmpHandlers<HostSchema> {
  const witnessed = async (report: WitnessReport | Promise<WitnessReport>) => {
    const { pagesOwned, writes, checks, violations, firstViolations } = await report;
    const { count, totalMs, p50Ms, p99Ms, histogram } = host.guest.machine.ram.faults.statistics();
    return {
      vcpus: host.guest.machine.ram.vcpus,
      writes,
      checks,
      violations,
      'first-violations': firstViolations.map(describeViolation),
      'pages-owned': pagesOwned,
      faults: {
        count,
        'total-ms': totalMs,
        'p50-ms': p50Ms,
        'p99-ms': p99Ms,
        histogram: histogram.map(({ fromMs, toMs, count }) => ({
          'from-ms': fromMs,
          'to-ms': toMs,
          count,
        })),
      },
      'zero-pages-received': host.received.zeroPages,
      'normal-pages-received': host.received.normalPages,
    };
  };
  return {
    'query-status': () => host.guest.status,
    stop: () => host.guest.stop(),
    cont: () => asQmpError(() => host.guest.cont()),
    quit: (_, { afterReply }) => afterReply(quit),

    migrate: ({ uri, channels, resume }) =>
      asQmpError(() => {
        const target = checkedUri(uri, channels);
        if (resume === true) host.resume(target);
        else host.migrate(target);
      }),
    'migrate-incoming': ({ uri, channels, 'exit-on-error': exitOnError }) =>
      asQmpError(async () => {
        await host.migrateIncoming(checkedUri(uri, channels), exitOnError ?? true);
      }),
    'migrate-pause': () => asQmpError(() => host.pause()),
    'migrate-recover': ({ uri }) => asQmpError(() => host.recover(checkedUri(uri, undefined))),
    migrate_cancel: () => asQmpError(() => host.cancel()),
    'migrate-start-postcopy': () => asQmpError(() => host.startPostcopy()),
    'migrate-set-capabilities': ({ capabilities }) =>
      asQmpError(() => {
        if (host.isMigrating) refuse("There's a migration process in progress");
        const next = setCapabilities(host.capabilities, capabilities, host.role);
        host.checkPostcopy(next);
        host.checkMultifd(next);
        host.capabilities = next;
      }),
    'query-migrate-capabilities': () =>
      CAPABILITIES.map((capability) => ({ capability, state: host.capabilities.has(capability) })),
    'migrate-set-parameters': (parameters) =>
      asQmpError(() => {
        if (parameters['direct-io'] === true && constants.O_DIRECT === undefined) {
          refuse('No build-time support for direct-io');
        }
        host.parameters = setParameters(host.parameters, parameters);
      }),
    'object-add': (object) => host.channels.objects.add(object),
    'object-del': ({ id }) => host.channels.objects.delete(id),
    'query-migrate-parameters': () => host.parameters,
    'query-migrate': () => asQmpInfo(host.migrationInfo),

    ...blockCommands(host.guest.blocks, host.guest.blockJobs),

    'x-wherry-guest': () => witnessed(host.guest.machine.witness()),
    'x-wherry-verify': () => witnessed(host.guest.machine.verify()),
    'x-wherry-handover': async ({ blocks }) => {
      if (host.isMigrating) refuse("There's a migration process in progress");
      const wasRunning = host.guest.machine.running;
      if (wasRunning) await host.guest.machine.stop();
      try {
        return {
          blocks: digestRam(host.guest.machine.ram, blocks),
          devices: digestDevices(host.handedOver),
        };
      } finally {
        if (wasRunning && host.guest.status.running) host.guest.machine.start();
      }
    },
  };
}

type QmpInfo = ReturnType<QmpHandlers<HostSchema>['query-migrate'] & object>;

/** Members of RAM statistics that belong to what this host does not do are zero, as in an idle QEMU. */
function asQmpInfo(info: Host['migrationInfo']): QmpInfo {
  const { ram, ...rest } = info as Info;
  if (ram === undefined) return rest as QmpInfo;
  return {
    ...rest,
    ram: { ...ram, 'dirty-sync-missed-zero-copy': 0 },
  } as QmpInfo;
}

function refuse(desc: string): never {
  throw new QmpCommandError('GenericError', desc);
}

/** @see migrate_uri_parse in QEMU's migration/migration.c for the texts */
function checkedUri(uri: string | undefined, channels: unknown): string {
  if (channels !== undefined) {
    refuse("Parameter 'channels' is not supported by this host, use 'uri'");
  }
  if (uri === undefined) return refuse("need either 'uri' or 'channels' argument");
  if (!/^(tcp|unix|exec|fd|file):/.test(uri)) refuse(`unknown migration protocol: ${uri}`);
  return uri;
}

/** Gives refusals of migration and transport QEMU's error shape. */
async function asQmpError(run: () => void | Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (error instanceof TransportError || error instanceof MigrationError) {
      refuse(error.message);
    }
    throw error;
  }
}
