import { isDeepStrictEqual } from 'node:util';
import { ByteWriter } from '@wherry/bytes';
import type { Description } from '@wherry/vmstate';
import type { EngineCase } from './engine-case.ts';
import { q35Guest } from './vmstate-q35.ts';
import type { VmstateSubject } from './vmstate-subject.ts';
import { handLoadNet, handSaveNet, netBytes, virtioNet } from './vmstate-virtio-net.ts';

const MARK = 0.3;
const LIMIT = 'a hand-written DataView loop over the same bytes';

/** Lists the cases of device state: each is loaded and saved by descriptions, and by hand. */
export function vmstateCases(): EngineCase[] {
  return [
    ...casesOf('virtio-net with 64 queues', () => {
      const bytes = netBytes();
      return {
        sections: [{ description: virtioNet as Description, bytes }],
        handLoad: () => handLoadNet(bytes),
        handSave: handSaveNet as VmstateSubject['handSave'],
        isSame: ([state], loaded) => isDeepStrictEqual(state, loaded),
      };
    }),
    ...casesOf('q35 machine', q35Guest),
  ];
}

function casesOf(name: string, make: () => VmstateSubject): EngineCase[] {
  const subject = make();
  const lengthBytes = subject.sections.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const shared = { lengthBytes, mark: MARK, limitIs: LIMIT, unit: 'MB/s' as const };
  return [
    { name: `vmstate load, ${name}`, ...shared, set: async () => load(subject) },
    { name: `vmstate save, ${name}`, ...shared, set: async () => save(subject, lengthBytes) },
  ];
}

function decodeAll({ sections }: VmstateSubject, bases: readonly unknown[]): unknown[] {
  return sections.map(({ description, bytes }, i) => description.decode(bytes, bases[i]));
}

/** Loads over states of the same shape, as a destination's devices have them. */
function load(subject: VmstateSubject) {
  const bases = decodeAll(
    subject,
    subject.sections.map(() => ({})),
  );
  if (!subject.isSame(decodeAll(subject, bases), subject.handLoad())) {
    throw new Error('the loops by hand load another state');
  }
  return {
    figure: { run: () => void decodeAll(subject, bases) },
    limit: { run: () => void subject.handLoad() },
  };
}

function save(subject: VmstateSubject, lengthBytes: number) {
  const states = decodeAll(
    subject,
    subject.sections.map(() => ({})),
  );
  const writer = new ByteWriter(lengthBytes);
  const view = new DataView(new ArrayBuffer(lengthBytes));
  const loaded = subject.handLoad();
  const run = (): Uint8Array => {
    for (const [i, { description }] of subject.sections.entries()) {
      description.save(writer, states[i]);
    }
    return writer.finish();
  };
  const expected = Buffer.concat(subject.sections.map(({ bytes }) => bytes));
  subject.handSave(loaded, view);
  if (!expected.equals(run()) || !expected.equals(new Uint8Array(view.buffer))) {
    throw new Error('saved bytes differ from those that were loaded');
  }
  return {
    figure: { run: () => void run() },
    limit: { run: () => void subject.handSave(loaded, view) },
  };
}
