import { type TestOptions, test } from 'vitest';
import { findPeer, isPeer, type Peer, type Release } from './peers/peers.ts';

/** Declares a test with a real QEMU; a missing one is a skipped test that says why. The body can skip itself, too. */
export function peerTest(
  release: Release,
  title: string,
  body: (peer: Peer, skip: (reason: string) => never) => Promise<void>,
  options: TestOptions = {},
): void {
  const peer = findPeer(release);
  test(`QEMU ${release}: ${title}`, options, ({ skip }) =>
    isPeer(peer) ? body(peer, skip) : skip(peer.missing),
  );
}
