import { type BlockGraph, MachineError, MirrorJob } from '@wherry/machine';
import type { BlockJobInfo, QapiArguments } from '@wherry/qmp';
import type { HostSchema } from './host-schema.ts';

/** What a job tells the outside, by QMP's event names. */
export interface BlockJobEvent {
  readonly name: 'BLOCK_JOB_READY' | 'BLOCK_JOB_COMPLETED' | 'BLOCK_JOB_CANCELLED';
  readonly data: {
    readonly type: 'mirror';
    readonly device: string;
    readonly len: number;
    readonly offset: number;
    readonly speed: number;
    readonly error?: string;
  };
}

/** The block jobs of a host: mirrors, which copy a piece at a time between other work. */
export class BlockJobs {
  readonly #graph: BlockGraph;
  readonly #onEvent: (event: BlockJobEvent) => void;
  readonly #jobs = new Map<string, MirrorJob>();

  constructor(graph: BlockGraph, onEvent: (event: BlockJobEvent) => void) {
    this.#graph = graph;
    this.#onEvent = onEvent;
  }

  /** Begins to mirror a disk. @throws MachineError `BLOCK_NODE` */
  mirror(options: QapiArguments<HostSchema, 'blockdev-mirror'>): void {
    const { device, target, sync, 'filter-node-name': filterNodeName, 'job-id': jobId } = options;
    const id = jobId ?? (this.#graph.backends.some(({ name }) => name === device) ? device : '');
    if (id === '')
      throw new MachineError('BLOCK_NODE', 'An explicit job ID is required for this node');
    if (this.#jobs.has(id)) throw new MachineError('BLOCK_NODE', `Job ID '${id}' already in use`);
    const job = new MirrorJob(this.#graph, {
      ...{ id, sync, source: this.#graph.find(device), target: this.#graph.find(target) },
      ...(filterNodeName === undefined ? {} : { filterNodeName }),
    });
    this.#jobs.set(id, job);
    setImmediate(() => this.#run(job));
  }

  #run(job: MirrorJob): void {
    if (this.#jobs.get(job.id) !== job) return;
    try {
      job.step();
    } catch (error) {
      this.#end(job, false);
      this.#tell('BLOCK_JOB_COMPLETED', job, (error as Error).message);
      return;
    }
    if (job.isReady) this.#tell('BLOCK_JOB_READY', job);
    else setImmediate(() => this.#run(job));
  }

  /** Ends a job; the copy of one that was ready is whole. @throws MachineError `BLOCK_NODE` */
  cancel(id: string): void {
    const job = this.#find(id);
    this.#end(job, false);
    this.#tell(job.isReady ? 'BLOCK_JOB_COMPLETED' : 'BLOCK_JOB_CANCELLED', job);
  }

  /** Ends a job that is ready: the guest goes on with the copy. @throws MachineError `BLOCK_NODE` */
  complete(id: string): void {
    const job = this.#find(id);
    if (!job.isReady) {
      throw new MachineError('BLOCK_NODE', `The active block job '${id}' cannot be completed`);
    }
    this.#end(job, true);
    this.#tell('BLOCK_JOB_COMPLETED', job);
  }

  list(): BlockJobInfo[] {
    return [...this.#jobs.values()].map((job) => ({
      type: 'mirror',
      device: job.id,
      len: job.lengthBytes,
      offset: job.offset,
      busy: !job.isReady,
      paused: false,
      speed: 0,
      ready: job.isReady,
      status: job.isReady ? 'ready' : 'running',
    }));
  }

  #find(id: string): MirrorJob {
    const job = this.#jobs.get(id);
    if (job !== undefined) return job;
    throw new MachineError('BLOCK_NODE', `Block job '${id}' not found`);
  }

  #end(job: MirrorJob, useCopy: boolean): void {
    this.#jobs.delete(job.id);
    job.end(useCopy);
  }

  #tell(name: BlockJobEvent['name'], job: MirrorJob, error?: string): void {
    const { id, lengthBytes, offset } = job;
    this.#onEvent({
      name,
      data: {
        ...{ type: 'mirror', device: id, len: lengthBytes, offset, speed: 0 },
        ...(error === undefined ? {} : { error }),
      },
    });
  }
}
