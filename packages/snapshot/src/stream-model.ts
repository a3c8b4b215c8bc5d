import type { Command, Configuration } from '@wherry/stream';
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
  readonly usedBytes: number;
  /** Host page size, where the list states it. */
  readonly pageBytes?: number;
  /** Guest-physical address, where the list states it. */
  readonly gpa?: number;
  /** Absolute file offsets of a mapped-ram file. */
  readonly mapped?: {
    readonly pageBytes: number;
    readonly bitmapOffset: number;
    readonly pagesOffset: number;
  };
  readonly pages: PageCounts;
}

/** All `ram` sections together. */
export interface RamModel {
  readonly totalBytes: number;
  readonly targetPageBytes: number;
  readonly blocks: readonly RamBlockModel[];
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
  /** The body; absent when the walker was told to keep none. */
  readonly body?: Uint8Array;
}

/** The description behind the end of the stream. */
export interface VmdescModel {
  /** Absolute offset of its type byte. */
  readonly offset: number;
  /** Bytes of its text. */
  readonly lengthBytes: number;
  /** The parsed text; absent when the walker was told to keep no bodies. */
  readonly value?: Vmdesc;
}

/** Everything that the walker has seen so far; of a broken stream, all up to the break. */
export interface StreamModel {
  /** Version of the format; absent until the header was read. */
  version?: number;
  configuration?: Configuration;
  ram?: RamModel;
  readonly items: ItemModel[];
  /** Items beyond the limit of {@link StreamModel.items}: counted, not listed. */
  omittedItems: number;
  readonly devices: DeviceModel[];
  /** Absolute offset of the byte that ends the stream's sections. */
  eofOffset?: number;
  vmdesc?: VmdescModel;
  /** Offset behind the stream's last byte; absent until the stream was read whole. */
  endOffset?: number;
  /** Bytes of the input behind the stream's end. */
  trailingBytes: number;
}
