import { isPeer, parseRelease, type Release, releases } from './peers.ts';
import { preparePeer } from './prepare-peer.ts';

/** `node conformance/peers/prepare.ts [release…]`: prepares the named releases, or all. */
async function main(names: readonly string[]): Promise<number> {
  let chosen: readonly Release[];
  try {
    chosen = names.length === 0 ? releases : names.map(parseRelease);
  } catch (error) {
    console.error((error as RangeError).message);
    return 2;
  }
  let missing = 0;
  for (const release of chosen) {
    const result = await preparePeer(release, (line) => console.log(line));
    if (isPeer(result)) {
      console.log(`QEMU ${release}: ready, version ${result.version} (${result.origin})`);
    } else {
      missing++;
      console.error(`QEMU ${release}: missing, ${result.missing}`);
    }
  }
  return missing === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
