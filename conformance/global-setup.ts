import { isPeer, type Release, releases } from './peers/peers.ts';
import { preparePeer } from './peers/prepare-peer.ts';

const usual: readonly Release[] = ['7.2', '11.1'];

/** Prepares the peers: 7.2 and 11.1, or all with `WHERRY_ALL_PEERS=1`. Called once by vitest. */
export async function setup(): Promise<void> {
  for (const release of process.env['WHERRY_ALL_PEERS'] === '1' ? releases : usual) {
    const peer = await preparePeer(release, (line) => console.log(line));
    if (!isPeer(peer)) console.warn(`QEMU ${release} is missing: ${peer.missing}`);
  }
}
