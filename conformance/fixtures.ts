import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/** What was recorded; README.md says what each case shows. */
export interface FixtureMeta {
  readonly release: string;
  /** The full version, such as `11.1.3`. */
  readonly version: string;
  readonly case: string;
  /** The kind of guest, where it is not x86-64. */
  readonly target?: string;
  readonly machine: string;
  /** Both ends' QEMU arguments but `-incoming`; file names are those of the ends' own folders. */
  readonly args: readonly string[];
  /** Our guest, on x86-64. */
  readonly guest?: Readonly<Record<string, number | boolean>>;
  readonly capabilities: readonly string[];
  readonly parameters: Readonly<Record<string, number>>;
  /** The last pass that the guest finished on the source: each line of its range holds it, or the next. */
  readonly lastPass?: number;
  /** The first pass that it finished on the destination, where there was one. */
  readonly firstPassAtDestination?: number;
  /** The source's `query-migrate` when completed: its statistics of RAM, and of XBZRLE. */
  readonly ram: Readonly<Record<string, number>>;
  readonly xbzrle?: Readonly<Record<string, number>>;
  readonly stream: FixtureBytes;
  readonly returnPath?: FixtureBytes;
}

/** One recorded direction; the digest is that of the plain bytes, in hexadecimal. */
export interface FixtureBytes {
  readonly file: string;
  readonly lengthBytes: number;
  readonly sha256: string;
}

export interface Fixture {
  readonly meta: FixtureMeta;
  /** What the source sent: the whole migration stream. */
  readonly stream: Uint8Array;
  /** What the destination sent back. */
  readonly returnPath?: Uint8Array;
}

/** How a libvirt save image was made. */
export interface SaveImageMeta extends FixtureBytes {
  readonly libvirt: string;
  readonly qemu: string;
  /** How libvirt packed the stream in it. */
  readonly format: string;
  readonly machine: string;
  readonly guest: Readonly<Record<string, number>>;
  readonly lastPass: number;
}

/** What QEMU's analyser printed of a stream, or the last line of what stopped it. */
export interface Analysis {
  readonly scriptSha256: string;
  readonly streamSha256: string;
  /** What it prints with `-d state`. */
  readonly state: { readonly text: string } | { readonly refused: string };
  /** What it prints with `-d desc`. */
  readonly desc: Analysis['state'];
}

/** The folder of the recorded streams. */
export const fixturesDirectory: string = join(import.meta.dirname, 'fixtures');

/** Lists every recorded stream, sorted by release and case. */
export function listFixtures(): { release: string; case: string }[] {
  const byNumber = (a: string, b: string): number => Number(a) - Number(b);
  return readdirSync(fixturesDirectory)
    .sort(byNumber)
    .flatMap((release) =>
      readdirSync(join(fixturesDirectory, release))
        .filter((name) => name.endsWith('.json'))
        .sort()
        .map((name) => ({ release, case: name.slice(0, -'.json'.length) })),
    );
}

/** Loads a recorded stream, unpacked. @throws Error if it was not recorded; the message lists all */
export function loadFixture(release: string, name: string): Fixture {
  const directory = join(fixturesDirectory, release);
  const metaPath = join(directory, `${name}.json`);
  if (!existsSync(metaPath)) {
    const known = listFixtures().map((fixture) => `${fixture.release}/${fixture.case}`);
    throw new Error(`no fixture ${release}/${name}; there are ${known.join(', ')}`);
  }
  const meta = JSON.parse(readFileSync(metaPath, 'utf8')) as FixtureMeta;
  const load = ({ file }: FixtureBytes): Uint8Array => {
    const bytes = readFileSync(join(directory, file));
    // A copy: a small Buffer is a view of a pool that it shares with others.
    return new Uint8Array(file.endsWith('.gz') ? gunzipSync(bytes) : bytes);
  };
  const stream = load(meta.stream);
  return meta.returnPath === undefined
    ? { meta, stream }
    : { meta, stream, returnPath: load(meta.returnPath) };
}

/** Returns where a release's `-dump-vmstate` is kept. */
export function dumpPath(release: string, machine: string): string {
  return join(fixturesDirectory, release, 'dumps', `${machine}.json.gz`);
}

/** Loads what a release said for `-dump-vmstate`, as text. */
export function loadDump(release: string, machine = 'pc-q35-5.2'): string {
  return gunzipSync(readFileSync(dumpPath(release, machine))).toString('utf8');
}

/** The folder of the images that libvirt saved. */
export const saveImagesDirectory: string = join(fixturesDirectory, '7.2', 'libvirt');

/** Loads every image that libvirt saved, unpacked from our own packing. */
export function loadSaveImages(): { meta: SaveImageMeta; image: Uint8Array }[] {
  return readdirSync(saveImagesDirectory)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => {
      const meta = JSON.parse(
        readFileSync(join(saveImagesDirectory, name), 'utf8'),
      ) as SaveImageMeta;
      const image = new Uint8Array(gunzipSync(readFileSync(join(saveImagesDirectory, meta.file))));
      return { meta, image };
    });
}

/** Returns where the analysis of a recorded stream is. */
export function analysisPath(release: string, name: string): string {
  return join(fixturesDirectory, release, `${name}.analysis.json.gz`);
}

/** Loads what QEMU's analyser printed of a recorded stream. */
export function loadAnalysis(release: string, name: string): Analysis {
  return JSON.parse(gunzipSync(readFileSync(analysisPath(release, name))).toString()) as Analysis;
}
