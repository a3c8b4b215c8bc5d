import { test } from 'vitest';
import { findPeer, isPeer, type Peer, type Release } from './peers/peers.ts';

/** Declares a test with a real QEMU; a missing one is a skipped test with the reason in its name. The body can skip itself, too. */
export function peerTest(
  release: Release,
  title: string,
  body: (peer: Peer, skip: (reason: string) => never) => Promise<void>,
): void {
  const peer = findPeer(release);
  if (isPeer(peer)) test(`QEMU ${release}: ${title}`, ({ skip }) => body(peer, skip));
  else test.skip(`QEMU ${release}: ${title} (skipped: ${peer.missing})`, () => {});
}
