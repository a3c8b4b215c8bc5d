import type { Command, Configuration, MappedRamPlace } from '@wherry/stream';
import type { Vmdesc } from '@wherry/vmstate';

/** Target pages that a RAM block's records carried, by kind of record. */
export interface PageCounts {
  page: number;
  zero: number;
  xbzrle: number;
  compress: number;
  /** Pages that a mapped-ram file holds: the set bits of the block's bitmap. */
  mapped: number;
}

/** A RAM block of the list, and what came for it. */
export interface RamBlockModel {
  readonly name: string;
  /** Its length; in a recovery stream, which has no list, up to the last page that was seen. */
  usedBytes: number;
  /** Host page size, where the list states it. */
  readonly pageBytes?: number;
  /** Guest-physical address, where the list states it. */
  readonly gpa?: number;
  readonly mapped?: MappedRamPlace;
  readonly pages: PageCounts;
  /** SHA-256 of the extracted block, in hexadecimal; whoever extracts it adds it. */
  sha256?: string;
}

/** All `ram` sections together. */
export interface RamModel {
  /** Sum of the blocks' lengths; 0 in a recovery stream. */
  readonly totalBytes: number;
  /** As stated, or else as the first page or the vmdesc tells. */
  targetPageBytes: number;
  readonly blocks: RamBlockModel[];
  multifdFlushes: number;
}

/** A command as the report shows it: the ranges of a discard are summed up. */
export type CommandModel =
  | Exclude<Command, { readonly name: 'postcopy-ram-discard' }>
  | {
      readonly name: 'postcopy-ram-discard';
      readonly block: string;
      readonly ranges: number;
      readonly lengthBytes: number;
    };

/** What every item of the stream has. */
interface Placed {
  /** Absolute offset of the type byte. */
  readonly offset: number;
  /** From the type byte to the last byte of the footer or payload. */
  lengthBytes: number;
  /** Whether it lay in a package. */
  readonly packaged: boolean;
}

/** One item of the stream in its order; successive PARTs of one section are one item. */
export type ItemModel =
  | (Placed & {
      readonly type: 'section';
      readonly kind: 'start' | 'part' | 'end' | 'full';
      readonly sectionId: number;
      readonly idstr: string;
      readonly instanceId: number;
      readonly version: number;
      /** How many sections this item stands for. */
      count: number;
    })
  | (Placed & { readonly type: 'command'; readonly command: CommandModel })
  | (Placed & { readonly type: 'eof' });

/** A FULL section: the state of one device. */
export interface DeviceModel {
  readonly sectionId: number;
  readonly idstr: string;
  readonly instanceId: number;
  readonly version: number;
  readonly offset: number;
  /** Absolute offset of the body, behind the head. */
  readonly bodyOffset: number;
  readonly bodyLengthBytes: number;
  /** The body; absent when the walker was told to keep none, or the bodies together pass its limit. */
  readonly body?: Uint8Array;
}

/** The description behind the end of the stream. */
export interface VmdescModel {
  /** Absolute offset of its type byte. */
  readonly offset: number;
  /** Bytes of its text. */
  readonly lengthBytes: number;
  /** The text as it came; absent where {@link VmdescModel.value} is. */
  readonly text?: string;
  /** The parsed text; absent when the walker was told to keep no bodies, or it is longer than it parses. */
  readonly value?: Vmdesc;
}

/** The file around a stream: so far that of `virsh save`. */
export interface ContainerModel {
  readonly format: 'libvirt-save';
  readonly version: number;
  /** How the stream is packed; a number as text where this program does not know the format. */
  readonly compression: string;
  /** Whether the guest ran when it was saved. */
  readonly wasRunning: boolean;
  /** Whether libvirt had not finished writing: its magic still says so. */
  readonly isPartial: boolean;
  readonly byteOrder: 'little' | 'big';
  /** The domain's XML. */
  readonly xml: string;
  /** libvirt's own notes, XML too. */
  readonly cookie?: string;
  /** Absolute offset at which the stream, or what it is packed into, begins. */
  readonly streamOffset: number;
}

/** A dirty bitmap as the `dirty-bitmap` sections carry it. */
export interface DirtyBitmapModel {
  /** Name or alias of the block node. */
  readonly node: string;
  readonly name: string;
  /** Bytes of disk that a bit stands for. */
  readonly granularityBytes: number;
  readonly enabled: boolean;
  readonly persistent: boolean;
  /** Bits that are set, of all that were sent. */
  setBits: number;
  /** Bytes of disk for which bits were sent. */
  coveredBytes: number;
  /** Whether its COMPLETE was seen. */
  isComplete: boolean;
  /** How many pieces of it came. */
  chunks: number;
}

/** A live section other than `ram`: its START, PARTs and END together. */
export interface LiveSectionModel {
  readonly idstr: string;
  readonly instanceId: number;
  readonly sectionId: number;
  readonly version: number;
  /** Bytes of all its bodies. */
  bodyBytes: number;
  /** What its bodies say, where their format is known: counters by name. */
  summary?: Record<string, number | string>;
}

/** What the byte asked for with `at` is. */
export interface LocatedModel {
  /** Absolute offset of the byte. */
  readonly offset: number;
  /** Where it is in the stream's structure, outermost first. */
  readonly path: readonly string[];
  /** What it is, in one sentence. */
  readonly what: string;
  /** The smallest piece with a meaning of its own that holds it. */
  readonly range: { readonly offset: number; readonly lengthBytes: number };
  /** The value of that piece, where it is one. */
  readonly value?: number | bigint | boolean | string | Uint8Array;
}

/** The section in which a broken stream breaks off. */
export interface PartialSectionModel {
  readonly kind: 'start' | 'part' | 'end' | 'full';
  readonly sectionId: number;
  readonly idstr: string;
  readonly instanceId: number;
  readonly version: number;
  readonly offset: number;
  /** Absolute offset of the body, behind the head. */
  readonly bodyOffset: number;
  /** What was read of a device's body. */
  readonly body?: Uint8Array;
}

/** Everything that the walker has seen so far; of a broken stream, all up to the break. */
export interface StreamModel {
  /** The file around the stream, if there is one. */
  container?: ContainerModel;
  /** Absolute offset of the header, where something that belongs to no stream is before it. */
  streamOffset?: number;
  /** Version of the format; absent until the header was read, and in a recovery stream, which has none. */
  version?: number;
  /** Whether this is what a source sends to recover a postcopy that broke: no header, no RAM list. */
  isRecovery?: boolean;
  configuration?: Configuration;
  ram?: RamModel;
  readonly items: ItemModel[];
  /** Items beyond the limit of {@link StreamModel.items}: counted, not listed. */
  omittedItems: number;
  readonly devices: DeviceModel[];
  /** Each START but that of `ram`. */
  readonly liveSections: LiveSectionModel[];
  dirtyBitmaps?: DirtyBitmapModel[];
  /** The section that was not read to its end. */
  partial?: PartialSectionModel;
  /** What the byte that was asked for is, once it is known. */
  located?: LocatedModel;
  /** Absolute offset of the byte that ends the stream's sections. */
  eofOffset?: number;
  vmdesc?: VmdescModel;
  /** Offset behind the stream's last byte; absent until the stream was read whole. */
  endOffset?: number;
  /** Bytes of the input behind the stream's end. */
  trailingBytes: number;
}
