import type { Schema } from '@wherry/vmstate';
import type { Diagnosis } from './diagnosis.ts';

/** What of a stream is reported, and how. */
export interface ReportOptions {
  readonly file: string;
  /** Which devices are shown; all when absent. */
  readonly isShown: ((idstr: string) => boolean) | undefined;
  /** Width of the terminal. */
  readonly columns: number;
  /** Describes the devices that the stream does not. */
  readonly schema: Schema | undefined;
  /** The machine type that the schema belongs to, where it is known. */
  readonly schemaMachineType: string | undefined;
  /** What the stream was unpacked from. */
  readonly packed: string | undefined;
  /** The files that RAM was written to, by block. */
  readonly ramFiles: ReadonlyMap<string, string> | undefined;
  /** Hears of each section that its description does not fit: a damaged stream, though its framing is whole. */
  readonly onMismatch: (diagnosis: Diagnosis) => void;
}
