import { test } from 'vitest';
import { findPeer, isPeer, type Peer, type Release } from './peers/peers.ts';

/** Declares a test with a real QEMU; a missing one is a skipped test with the reason in its name. */
export function peerTest(
  release: Release,
  title: string,
  body: (peer: Peer) => Promise<void>,
): void {
  const peer = findPeer(release);
  if (isPeer(peer)) test(`QEMU ${release}: ${title}`, () => body(peer));
  else test.skip(`QEMU ${release}: ${title} (skipped: ${peer.missing})`, () => {});
}
