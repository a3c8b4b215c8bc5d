import {
  buffer,
  type Device,
  describe,
  field,
  type StateOf,
  u8,
  u32,
  vmstateDevice,
} from '@wherry/vmstate';

const RUNSTATE_BYTES = 32;
const UNUSED_BYTES = 66;

/** @see vmstate_globalstate in QEMU's migration/global_state.c */
const globalState = describe({
  name: 'globalstate',
  version: 1,
  fields: [
    field('size', u32),
    field('runstate', buffer(RUNSTATE_BYTES)),
    field('has_vm_was_suspended', u8),
    field('vm_was_suspended', u8),
    field('unused', buffer(UNUSED_BYTES)),
  ],
  postLoad: ({ runstate }) => {
    decode(runstate);
  },
});

type State = StateOf<typeof globalState>;

/** Run states in which a guest may arrive. @see RunState in QEMU's qapi/run-state.json */
const RUN_STATES = [
  'running',
  'paused',
  'prelaunch',
  'postmigrate',
  'finish-migrate',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'internal-error',
  'io-error',
  'debug',
  'inmigrate',
  'save-vm',
  'restore-vm',
  'colo',
];

/** The section that tells the destination whether the guest was running. */
export class GlobalState {
  /** The source's run state; `running` where no section came. */
  runState = 'running';
  readonly device: Device = vmstateDevice({
    idstr: 'globalstate',
    description: globalState,
    get: () => encode(this.runState),
    set: (state) => {
      this.runState = decode(state.runstate);
    },
  });
}

function encode(runState: string): State {
  const bytes = new Uint8Array(RUNSTATE_BYTES);
  bytes.set(new TextEncoder().encode(runState));
  return {
    size: runState.length + 1,
    runstate: bytes,
    has_vm_was_suspended: 1,
    vm_was_suspended: 0,
    unused: new Uint8Array(UNUSED_BYTES),
  };
}

function decode(runstate: Uint8Array): string {
  const end = runstate.indexOf(0);
  const text = String.fromCharCode(...runstate.subarray(0, end < 0 ? RUNSTATE_BYTES : end));
  if (!RUN_STATES.includes(text)) throw new Error(`invalid parameter value: ${text}`);
  return text;
}
