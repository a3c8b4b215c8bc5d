import type { Cause } from '../cause.ts';

/** An errno as QEMU prints it: a number with a minus sign, or its text behind `load of migration failed`. */
interface Errno {
  readonly number: number;
  readonly name: string;
  readonly text: string;
  readonly why: string;
  readonly action: string;
}

const READ_ON =
  'The reason is in the lines before it (10.0 and older) or behind it in the same line (11.1): explain the whole log.';

const ERRNOS: readonly Errno[] = [
  {
    number: 22,
    name: 'EINVAL',
    text: 'Invalid argument',
    why: 'Something in the stream does not fit this machine: the general answer of every check, from machine type and device to a single value.',
    action: READ_ON,
  },
  {
    number: 5,
    name: 'EIO',
    text: 'Input/output error',
    why: 'The stream ended too early: the source stopped or the connection was cut. Or a device wanted to read more than was sent.',
    action: 'Look at the source’s log first; if it completed, explain the whole log of this side.',
  },
  {
    number: 2,
    name: 'ENOENT',
    text: 'No such file or directory',
    why: 'No file is meant: a subsection in the stream is not known here (7.2 and older say no more), so the source is newer or has a feature on that this side lacks.',
    action:
      'See which subsections the stream holds with `wherry inspect`, and compare the device’s options on both sides.',
  },
  {
    number: 1,
    name: 'EPERM',
    text: 'Operation not permitted',
    why: 'A hook of a device refused without saying why (it returned -1), or a capability is missing on this host.',
    action: READ_ON,
  },
  {
    number: 12,
    name: 'ENOMEM',
    text: 'Cannot allocate memory',
    why: 'The host has not enough memory or huge pages, or a length in the stream is damaged.',
    action: 'Compare the guest’s size with free memory and huge pages of the host.',
  },
  {
    number: 17,
    name: 'EEXIST',
    text: 'File exists',
    why: 'A page was placed twice in postcopy: the source sent it again, or did not discard what it had sent before.',
    action: 'This is a fault of the sender; resume the paused migration.',
  },
  {
    number: 28,
    name: 'ENOSPC',
    text: 'No space left on device',
    why: 'The disk of the stream is full.',
    action: 'Make room and migrate again: the guest goes on.',
  },
  {
    number: 32,
    name: 'EPIPE',
    text: 'Broken pipe',
    why: 'The other side closed the connection: it failed.',
    action: 'Look at the log of the other side.',
  },
  {
    number: 104,
    name: 'ECONNRESET',
    text: 'Connection reset by peer',
    why: 'The other side ended without reading all that was sent: it failed or was killed.',
    action: 'Look at the log of the other side.',
  },
  {
    number: 110,
    name: 'ETIMEDOUT',
    text: 'Connection timed out',
    why: 'The network does not carry the packets any more, or a firewall drops them.',
    action: 'Check the network between the hosts.',
  },
  {
    number: 34,
    name: 'ERANGE',
    text: 'Numerical result out of range',
    why: 'A command in the stream has a wrong length: the stream is damaged or was read to a wrong length before.',
    action: READ_ON,
  },
  {
    number: 95,
    name: 'ENOTSUP',
    text: 'Operation not supported',
    why: 'A record, feature or command that this release or host does not have.',
    action: READ_ON,
  },
  {
    number: 14,
    name: 'EFAULT',
    text: 'Bad address',
    why: 'The kernel refused an address: in postcopy, a page outside of the guest’s RAM.',
    action: 'Compare sizes of RAM and memory backends on both sides.',
  },
  {
    number: 16,
    name: 'EBUSY',
    text: 'Device or resource busy',
    why: 'A device is not in a state in which it can be saved or loaded, or an image is locked by another process.',
    action: READ_ON,
  },
  {
    number: 11,
    name: 'EAGAIN',
    text: 'Resource temporarily unavailable',
    why: 'An image is locked by the other side, or a non-blocking channel was empty.',
    action: 'Check that both sides open shared images with locking that allows migration.',
  },
];

/** What QEMU’s error numbers mean in a migration. */
export const ERRNO_CAUSES: readonly Cause[] = [
  ...ERRNOS.map(({ number, name, text, why, action }) => ({
    code: `LOAD_FAILED_${name}`,
    what: `The load or step failed with ${name} (-${number}, “${text}”)`,
    why,
    action,
    messages: [
      `load of migration failed: ${text}`,
      `Error while loading VM state: ${text}`,
      `Error while loading vmstate: stream error: -${number}`,
      `loadvm failed: stream error: -${number}`,
      `Failed to load VM process command: stream error: -${number}`,
      `error -${number}`,
      `ret: -${number}`,
      `ret=-${number}`,
      `failed: -${number}`,
      `^-${number}$`,
    ],
  })),
  {
    code: 'LOAD_FAILED',
    what: 'The load failed[: {reason}]',
    why: 'The text is that of an error number; it tells little by itself.',
    action: READ_ON,
    messages: ['load of migration failed: {reason}', 'load of migration failed'],
  },
];
