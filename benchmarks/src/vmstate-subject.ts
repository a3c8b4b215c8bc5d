import type { Description } from '@wherry/vmstate';

/** Device state, with one description for each section, and the same by hand. */
export interface VmstateSubject {
  readonly sections: readonly { readonly description: Description; readonly bytes: Uint8Array }[];
  /** Loads all sections. */
  handLoad(): unknown;
  /** Saves what `handLoad` gave, into `view`. @returns how many bytes */
  handSave(loaded: unknown, view: DataView): number;
  /** Whether the states of the sections are what `handLoad` gave. */
  isSame(states: readonly unknown[], loaded: unknown): boolean;
}
