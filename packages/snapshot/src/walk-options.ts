import type { Command, SectionHead } from '@wherry/stream';
import type { RamSink } from './ram-sink.ts';
import type { ContainerModel, VmdescModel } from './stream-model.ts';

/** What a walk keeps, and who hears of it meanwhile. */
export interface WalkOptions {
  /** Whether device bodies and the vmdesc are kept for decoding (default true). */
  readonly keepBodies?: boolean;
  /** The most bytes of bodies to keep in all (default 64 MiB); a body that passes it is walked, not kept. */
  readonly maxKeptBytes?: number;
  /** Takes the contents of RAM. */
  readonly ramSink?: RamSink | undefined;
  /** Absolute offset of a byte to explain: `located` of the model. */
  readonly at?: number | undefined;
  /**
   * The vmdesc, read beforehand from the end of a file whose sections have no footers (a walk without
   * it ended with `FOOTERS_ABSENT`): sections are split by it.
   */
  readonly vmdesc?: VmdescModel | undefined;
  /** The file around a packed stream, where the reader gets what was unpacked from it. */
  readonly container?: ContainerModel | undefined;
  /** Hears of each command before what follows it is read; a throw ends the walk. */
  readonly onCommand?: (command: Command, offset: number) => void;
  /** Hears of each section before its body is read, with its own offset; a PART or END comes with the head of its START. */
  readonly onSection?: (
    kind: SectionHead['kind'],
    head: Extract<SectionHead, { readonly idstr: string }>,
    offset: number,
  ) => void;
  /** Hears of the offset behind a section, its footer read. */
  readonly onSectionEnd?: (offset: number) => void;
  /**
   * Hears of each place in the `ram` section at which a source with multifd may have waited for its
   * channels: the end of a section's records, or a flush. When it says so the walk yields there.
   */
  readonly onRamMark?: (mark: 'eos' | 'flush') => boolean;
  /** Hears of the byte that ends the sections; a vmdesc may follow. */
  readonly onEof?: () => void;
  /** Hears that the vmdesc was read: nothing more belongs to the stream. */
  readonly onVmdesc?: () => void;
}
