import {
  buffer,
  type Description,
  describe,
  field,
  i32,
  struct,
  timer,
  u8,
  u16,
  u32,
} from '@wherry/vmstate';

const NOT_ARMED = -1n;
const FIFO_BYTES = 16;

const IER_THRI = 0x02;
const IIR_ID = 0x06;
const IIR_THRI = 0x02;
const LSR_TEMT = 0x40;

/** A FIFO's state; `num` of its bytes are used, from `head` on. */
interface Fifo {
  data: Uint8Array;
  head: number;
  num: number;
}

const fifo8: Description<Fifo> = describe({
  name: 'Fifo8',
  version: 1,
  fields: [field('data', buffer(FIFO_BYTES)), field('head', u32), field('num', u32)],
});

/** State of a 16550 UART, its subsections' fields included. */
export interface UartState {
  divider: number;
  rbr: number;
  ier: number;
  iir: number;
  lcr: number;
  mcr: number;
  lsr: number;
  msr: number;
  scr: number;
  fcr_vmstate: number;
  /** Whether the transmitter's interrupt is pending. */
  thr_ipending: number;
  /** How often the byte in the transmitter was tried in vain. */
  tsr_retry: number;
  thr: number;
  tsr: number;
  recv_fifo: Fifo;
  xmit_fifo: Fifo;
  /** Timers are in ns of the virtual clock, -1 while not armed. */
  fifo_timeout_timer: bigint;
  timeout_ipending: number;
  /** Whether modem lines are polled, -1 where there are none. */
  poll_msl: number;
  modem_status_poll: bigint;
}

const uart: Description<UartState> = describe({
  name: 'serial',
  version: 3,
  minimumVersion: 2,
  fields: [
    field('divider', u16, { since: 2 }),
    field('rbr', u8),
    field('ier', u8),
    field('iir', u8),
    field('lcr', u8),
    field('mcr', u8),
    field('lsr', u8),
    field('msr', u8),
    field('scr', u8),
    field('fcr_vmstate', u8, { since: 3 }),
  ],
  subsections: [
    describe({
      name: 'serial/thr_ipending',
      version: 1,
      needed: (s: { ier: number; iir: number; thr_ipending: number }) =>
        (s.ier & IER_THRI) !== 0 && s.thr_ipending !== transmitPending(s.iir),
      fields: [field('thr_ipending', i32)],
    }),
    describe({
      name: 'serial/tsr',
      version: 1,
      needed: (s: { tsr_retry: number }) => s.tsr_retry !== 0,
      fields: [field('tsr_retry', u32), field('thr', u8), field('tsr', u8)],
    }),
    describe({
      name: 'serial/recv_fifo',
      version: 1,
      needed: (s: { recv_fifo: { num: number } }) => s.recv_fifo.num !== 0,
      fields: [field('recv_fifo', struct(fifo8))],
    }),
    describe({
      name: 'serial/xmit_fifo',
      version: 1,
      needed: (s: { xmit_fifo: { num: number } }) => s.xmit_fifo.num !== 0,
      fields: [field('xmit_fifo', struct(fifo8))],
    }),
    describe({
      name: 'serial/fifo_timeout_timer',
      version: 1,
      needed: (s: { fifo_timeout_timer: bigint }) => s.fifo_timeout_timer !== NOT_ARMED,
      fields: [field('fifo_timeout_timer', timer)],
    }),
    describe({
      name: 'serial/timeout_ipending',
      version: 1,
      needed: (s: { timeout_ipending: number }) => s.timeout_ipending !== 0,
      fields: [field('timeout_ipending', i32)],
    }),
    describe({
      name: 'serial/poll',
      version: 1,
      needed: (s: { poll_msl: number }) => s.poll_msl >= 0,
      fields: [field('poll_msl', i32), field('modem_status_poll', timer)],
    }),
  ],
  preLoad: (state) => Object.assign(state, ABSENT),
  postLoad: (state, version) => {
    const uartState = state as UartState;
    if (version < 3) uartState.fcr_vmstate = 0;
    if (uartState.thr_ipending === -1) uartState.thr_ipending = transmitPending(uartState.iir);
    // A byte that is to be tried again sits in the transmitter.
    const empty = (uartState.lsr & LSR_TEMT) !== 0;
    if (uartState.tsr_retry > 0 === empty) {
      throw new Error(
        `LSR says that the transmitter is ${empty ? 'empty' : 'busy'}, with ${uartState.tsr_retry} retries of its byte`,
      );
    }
  },
});

/** Describes the section `serial`: an ISA serial port. @see vmstate_isa_serial in QEMU's hw/char/serial-isa.c */
export const serialDescription: Description<{ state: UartState }> = describe({
  name: 'serial',
  version: 3,
  minimumVersion: 2,
  fields: [field('state', struct(uart))],
});

const emptyFifo = { data: new Uint8Array(FIFO_BYTES), head: 0, num: 0 };

const ABSENT = {
  thr_ipending: -1,
  tsr_retry: 0,
  thr: 0,
  tsr: 0,
  recv_fifo: emptyFifo,
  xmit_fifo: emptyFifo,
  fifo_timeout_timer: NOT_ARMED,
  timeout_ipending: 0,
  poll_msl: -1,
  modem_status_poll: NOT_ARMED,
};

function transmitPending(iir: number): number {
  return (iir & IIR_ID) === IIR_THRI ? 1 : 0;
}

/** Makes the state of a serial port after reset, with nothing connected that has modem lines. */
export function serialAtReset(): { state: UartState } {
  return {
    state: {
      divider: 12, // 9600 baud
      rbr: 0,
      ier: 0,
      iir: 0x01, // no interrupt
      lcr: 0,
      mcr: 0x08, // OUT2
      lsr: LSR_TEMT | 0x20, // transmitter and its holding register are empty
      msr: 0xb0, // DCD, DSR, CTS
      scr: 0,
      fcr_vmstate: 0,
      ...ABSENT,
      thr_ipending: 0,
    },
  };
}
