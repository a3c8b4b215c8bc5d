import { type Configuration, StreamError } from '@wherry/stream';
import type { RamIndex } from './ram-index.ts';
import type { RandomAccess } from './random-access.ts';
import type { ItemModel, RamBlockModel, StreamModel } from './stream-model.ts';

/** A half-open range of bytes of a file. */
export interface FileRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

type SectionItem = Extract<ItemModel, { readonly type: 'section' }>;

/** More would not be a guest, but a damaged length: 2^28 pages of 4 KiB are 1 TiB. */
const MAX_PAGES = 2 ** 28;

/**
 * Is a guest that stands still in a file: its RAM by page, and all else as the byte ranges of whole
 * sections, in the order in which a destination wants them.
 */
export class StoredGuest {
  readonly ram: RamIndex;
  readonly blocks: readonly RamBlockModel[];
  readonly targetPageBytes: number;
  /** Without what belongs to the way it was written; absent in streams of machine types up to 2.3. */
  readonly configuration: Configuration | undefined;
  /** The sender's number for the section of RAM, which a recovery has to repeat. */
  readonly ramSectionId: number;
  /** Whether sections end with footers. */
  readonly hasFooters: boolean;
  /** Whether the sender announced its switchover with a command of its own. */
  readonly announcesSwitchover: boolean;
  /** Sections that go ahead of the list of RAM blocks. */
  readonly beforeRam: readonly FileRange[];
  /** Sections between that list and the first page. */
  readonly beforePages: readonly FileRange[];
  /** All other sections. */
  readonly behindPages: readonly FileRange[];
  readonly vmdesc: FileRange | undefined;
  readonly #file: RandomAccess;

  /**
   * Makes a guest of a stream that was walked to its end with the index as `ramSink`.
   *
   * @throws StreamError `GUEST_INCOMPLETE` when the file does not hold all of a guest
   */
  constructor(model: StreamModel, ram: RamIndex, file: RandomAccess) {
    const blocks = checkWhole(model);
    const { configuration, items, vmdesc, devices } = model;
    const { targetPageBytes } = model.ram!;
    this.ram = ram;
    this.#file = file;
    this.blocks = blocks;
    this.targetPageBytes = targetPageBytes;
    this.configuration = configuration && withoutMappedRam(configuration);
    const sections = items.filter((item) => item.type === 'section');
    const ramItems = sections.filter(({ idstr }) => idstr === 'ram');
    const others = sections.filter(({ idstr }) => idstr !== 'ram');
    const [start] = ramItems as [SectionItem, ...SectionItem[]];
    const pagesOffset = ramItems[1]?.offset ?? Number.POSITIVE_INFINITY;
    this.ramSectionId = start.sectionId;
    this.beforeRam = others.filter(({ offset }) => offset < start.offset);
    const isSetUp = ({ offset, packaged }: SectionItem): boolean =>
      !packaged && offset > start.offset && offset < pagesOffset;
    this.beforePages = others.filter(isSetUp);
    this.behindPages = others.filter((item) => item.offset > start.offset && !isSetUp(item));
    this.announcesSwitchover = items.some(
      (item) => item.type === 'command' && item.command.name === 'switchover-start',
    );
    const [device] = devices;
    const item = sections.find(({ offset }) => offset === device?.offset);
    this.hasFooters =
      device === undefined ||
      item === undefined ||
      item.offset + item.lengthBytes > device.bodyOffset + device.bodyLengthBytes;
    this.vmdesc = vmdesc && { offset: vmdesc.offset, lengthBytes: vmdesc.lengthBytes + 5 };
  }

  /** Reads bytes of the file; gives the count, less than asked for at its end only. */
  readBytes(into: Uint8Array, offset: number): number {
    return this.#file.read(into, offset);
  }
}

/** Its pages are no longer where the file has them, whatever reads them next. */
function withoutMappedRam({ capabilities = [], ...rest }: Configuration): Configuration {
  const left = capabilities.filter((name) => name !== 'mapped-ram');
  return left.length === 0 ? rest : { ...rest, capabilities: left };
}

function checkWhole(model: StreamModel): readonly RamBlockModel[] {
  const { ram, configuration, isRecovery, omittedItems } = model;
  if (isRecovery === true) {
    throw incomplete(
      'a recovery of a postcopy',
      'It holds the pages that a broken postcopy still owed: the rest went over another connection',
    );
  }
  if (ram === undefined || ram.blocks.length === 0) {
    throw incomplete('no RAM', 'It was written by something other than a whole migration');
  }
  if (configuration?.capabilities?.includes('x-ignore-shared') === true) {
    throw incomplete(
      'a migration with x-ignore-shared',
      'The RAM is in the shared file of the guest’s memory backend: give that to the destination',
    );
  }
  const pages = ram.blocks.reduce((sum, { usedBytes }) => sum + usedBytes, 0) / ram.targetPageBytes;
  if (pages > MAX_PAGES) {
    throw incomplete(
      `${ram.totalBytes} bytes of RAM`,
      `A length is damaged; up to ${MAX_PAGES} pages are read`,
    );
  }
  // Zero pages go over the main channel in any case, also where multifd sends no mark of its own.
  const isAllZero = ram.blocks.reduce((sum, block) => sum + block.pages.zero, 0) >= pages;
  const hasContents = ram.blocks.some(
    ({ mapped, pages: { page, xbzrle, compress } }) =>
      mapped !== undefined || page + xbzrle + compress > 0,
  );
  if (ram.multifdFlushes > 0 || !(hasContents || isAllZero)) {
    throw incomplete(
      'the main channel of multifd',
      'The pages went over the channels of multifd: save the guest with multifd off, or with mapped-ram',
    );
  }
  if (omittedItems > 0) {
    throw incomplete(
      `${omittedItems} sections too many`,
      'The stream is damaged, or something other than a virtual machine wrote it',
    );
  }
  return ram.blocks;
}

function incomplete(found: string, likely: string): StreamError {
  return new StreamError('GUEST_INCOMPLETE', 'The file does not hold a whole guest', {
    expected: 'a migration stream with its RAM, devices and end',
    found,
    likely,
  });
}
