import { Worker } from 'node:worker_threads';
import { type BlockGraph, Machine, type MachineOptions } from '@wherry/machine';
import { type GuestPort, MigrationError, type MigrationStatus } from '@wherry/migration';
import type { RunState } from '@wherry/qmp';
import { type AddedDevice, addDevices, checkOnlyMigratable } from './added-devices.ts';
import { type BlockJobEvent, BlockJobs } from './block-jobs.ts';
import { type BlockOptions, openDisks } from './block-options.ts';
import { rehearseMigration } from './rehearse-migration.ts';
import { SharedRamFiles } from './shared-ram.ts';

/** What a guest tells the outside, by QMP's event names. */
export type GuestEvent = { readonly name: 'STOP' | 'RESUME' } | BlockJobEvent;

/** What {@link HostGuest.create} takes. */
export interface HostGuestOptions {
  readonly machine: Omit<MachineOptions, 'spawn' | 'now'>;
  /** Devices besides the machine's own. */
  readonly devices?: readonly AddedDevice[];
  readonly disks?: BlockOptions;
  /** Refuse to make a guest that cannot be migrated. */
  readonly onlyMigratable?: boolean;
  /** Has the system give memory to all of the guest's RAM before anything else. */
  readonly preallocate?: boolean;
  /** Files of shared RAM blocks, by their names. */
  readonly sharedFiles: ReadonlyMap<string, string>;
  /** The guest waits for `cont`. */
  readonly paused?: boolean;
  readonly onEvent: (event: GuestEvent) => void;
  /** Called when a vCPU's thread has died. */
  readonly onVcpuFailed: (error: Error) => void;
}

/** The guest of a host: its machine and disks, and whether it runs, as QEMU's run states have it. */
export class HostGuest {
  readonly machine: Machine;
  readonly blocks: BlockGraph;
  readonly blockJobs: BlockJobs;
  /** What migrations have of it. */
  readonly port: GuestPort;
  readonly #shared: SharedRamFiles;
  readonly #onEvent: HostGuestOptions['onEvent'];
  #runState: RunState;
  #autostart: boolean;
  #arrivalConfirmed = false;

  private constructor(
    machine: Machine,
    shared: SharedRamFiles,
    blocks: BlockGraph,
    options: HostGuestOptions,
  ) {
    this.machine = machine;
    this.#shared = shared;
    this.blocks = blocks;
    this.blockJobs = new BlockJobs(blocks, options.onEvent);
    this.#onEvent = options.onEvent;
    this.#autostart = options.paused !== true;
    this.#runState = options.machine.incoming === true ? 'inmigrate' : 'prelaunch';
    this.port = this.#makePort(addDevices(machine.devices, options.devices ?? []));
  }

  /**
   * Makes a guest; it runs unless it is incoming or paused.
   *
   * @throws CliError for devices that cannot be there, and files and disks that cannot be opened
   */
  static async create(options: HostGuestOptions): Promise<HostGuest> {
    if (options.onlyMigratable === true) checkOnlyMigratable(options.devices ?? []);
    const { disks = { blockdev: [], drive: [], disk: undefined } } = options;
    const blocks = openDisks(disks, options.machine.incoming === true);
    const machine = await Machine.create({
      ...options.machine,
      now: () => Date.now(),
      spawn: (init) => {
        const worker = new Worker(new URL('./vcpu-thread.js', import.meta.url), {
          workerData: init,
        });
        worker.on('error', options.onVcpuFailed);
        return {
          terminate: () => worker.terminate(),
          onError: (listener) => void worker.on('error', listener),
        };
      },
    });
    let guest: HostGuest;
    try {
      if (options.preallocate === true) for (const block of machine.ram.blocks) block.populate();
      await rehearseMigration(machine.machineType, machine.devices);
      const shared = await SharedRamFiles.open(machine.ram, options.sharedFiles);
      guest = new HostGuest(machine, shared, blocks, options);
    } catch (error) {
      blocks.close();
      await machine.close();
      throw error;
    }
    if (guest.#runState === 'prelaunch' && guest.#autostart) guest.#start();
    return guest;
  }

  get status(): { running: boolean; status: RunState } {
    return { running: this.#runState === 'running', status: this.#runState };
  }

  /** Whether it is still to come from another host. */
  get isIncoming(): boolean {
    return this.#runState === 'inmigrate';
  }

  /** Whether it went to another host. */
  get isMigrated(): boolean {
    return this.#runState === 'postmigrate';
  }

  /** Whether it is to run once it has come. */
  get autostart(): boolean {
    return this.#autostart;
  }

  /** @throws MigrationError `STATE` */
  async stop(): Promise<void> {
    if (this.#runState === 'inmigrate') this.#autostart = false;
    if (this.#runState !== 'running') return;
    await this.machine.stop();
    if (this.#runState !== 'running') return; // a migration has stopped it for good meanwhile
    this.#runState = 'paused';
    this.#onEvent({ name: 'STOP' });
  }

  /** Lets the guest go on. @throws MigrationError `STATE` when it runs, or may run, elsewhere */
  cont(): void {
    switch (this.#runState) {
      case 'inmigrate':
        this.#autostart = true;
        return;
      case 'finish-migrate':
        throw new MigrationError('STATE', 'The guest cannot run here while it is handed over');
      case 'postmigrate':
        // Without a return path nobody told this host that the guest has arrived.
        if (!this.#arrivalConfirmed) break;
        throw new MigrationError(
          'STATE',
          'The guest has been migrated: it runs at the destination',
        );
      case 'running':
        return;
    }
    this.#start();
  }

  /** @param isConfirmed whether the destination says when the guest has arrived */
  sourceEnded(status: MigrationStatus, isConfirmed: boolean): void {
    this.#arrivalConfirmed = isConfirmed;
    if (status === 'completed') this.#runState = 'postmigrate';
    // Whoever knows that the destination does not run the guest may `cont` here.
    else if (this.#runState === 'finish-migrate' && status === 'failed') this.#runState = 'paused';
  }

  destinationEnded(status: MigrationStatus): void {
    if (status === 'completed' && this.#runState === 'inmigrate') this.#runState = 'paused';
  }

  /** Ends its vCPUs, and closes its files. */
  async close(): Promise<void> {
    await this.machine.close();
    await this.#shared.close();
    this.blocks.close();
  }

  #start(): void {
    this.blocks.activate();
    this.machine.start();
    this.#runState = 'running';
    this.#onEvent({ name: 'RESUME' });
  }

  #makePort({ devices, blockers }: ReturnType<typeof addDevices>): GuestPort {
    const { machine } = this;
    // Until `stop` is through the vCPUs may still write, so the machine's own flag says too little.
    const isRunning = (): boolean => this.#runState === 'running';
    return {
      machineType: machine.machineType,
      ram: machine.ram,
      devices,
      disks: this.blocks,
      blockers,
      shared: this.#shared,
      faults: {
        wait: (signal) => machine.ram.faults.wait(signal),
        take: () => machine.ram.faults.take(),
        waiting: () => machine.ram.faults.waiting(),
        repeat: () => machine.ram.faults.forgetOutstanding(),
      },
      get running() {
        return isRunning();
      },
      start: () => this.#start(),
      setThrottle: (percentage) => machine.setThrottle(percentage),
      stop: async () => {
        this.#runState = 'finish-migrate';
        await machine.stop();
        this.#onEvent({ name: 'STOP' });
      },
    };
  }
}
