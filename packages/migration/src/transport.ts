/**
 * One connection of a migration, both directions. `migration` owns this interface; `@wherry/transport`
 * implements it for Node, the simulation for a virtual network.
 *
 * One read and one write may be under way at a time. Errors reject with what broke the connection.
 */
export interface Transport {
  /**
   * Reads at least one byte into `into`, which must stay untouched until then.
   *
   * @returns the number of bytes read; 0 when the peer has ended its direction
   */
  read(into: Uint8Array): Promise<number>;
  /** Writes all of `bytes`; resolves when the buffer may be used again. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends this side's direction after what was written; the other direction stays open. */
  end(): Promise<void>;
  /** Drops the connection at once: what is under way rejects with `reason`. Idempotent. */
  destroy(reason?: Error): void;
}
