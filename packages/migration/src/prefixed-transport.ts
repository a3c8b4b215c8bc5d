import type { Transport } from './transport.ts';

/** Puts bytes that were read from a connection back before what follows. */
export function withPrefix(transport: Transport, prefix: Uint8Array): Transport {
  let rest = prefix;
  return {
    read: async (into) => {
      if (rest.length === 0) return transport.read(into);
      const count = Math.min(rest.length, into.length);
      into.set(rest.subarray(0, count));
      rest = rest.subarray(count);
      return count;
    },
    write: (bytes) => transport.write(bytes),
    end: () => transport.end(),
    destroy: (reason) => transport.destroy(reason),
  };
}
