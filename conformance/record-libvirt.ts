import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { type SaveImageMeta, saveImagesDirectory } from './fixtures.ts';
import { bootSector } from './guest/boot-sector.ts';
import { firmware } from './guest/firmware.ts';
import { parseMarks } from './guest/marks.ts';

const guest = { rangeStart: 0x10_0000, rangeEnd: 0x14_0000, passesPerSecond: 20 };
const formats = ['raw', 'gzip', 'bzip2', 'xz'] as const;
const NOBODY = 65_534;

/**
 * `node conformance/record-libvirt.ts`: has libvirt save our guest once in each format. It needs
 * `libvirtd` with its QEMU driver, and `virsh`; it starts a session daemon of its own, with a home of
 * its own, and as nobody where it is started by root.
 */
async function main(): Promise<number> {
  mkdirSync(saveImagesDirectory, { recursive: true });
  for (const format of formats) {
    try {
      console.log(`${format}: ${await record(format)} bytes`);
    } catch (error) {
      console.error(`${format}: ${(error as Error).message}`);
      return 1;
    }
  }
  return 0;
}

async function record(format: (typeof formats)[number]): Promise<number> {
  await using session = await LibvirtSession.start(`save_image_format = "${format}"\n`);
  const path = (name: string): string => join(session.directory, name);
  session.write('firmware.bin', firmware(bootSector(guest)));
  session.write('domain.xml', domainXml(path('firmware.bin'), path('serial.txt')));
  session.virsh('create', path('domain.xml'));
  while (session.marks.length < 10) await sleep(20);
  session.virsh('save', 'wherry', path('saved'));
  const bytes = readFileSync(path('saved'));
  const file = `${format}.save.gz`;
  writeFileSync(join(saveImagesDirectory, file), gzipSync(bytes, { level: 9 }));
  const meta: SaveImageMeta = {
    libvirt: session.virsh('version', '--daemon').match(/daemon: (\S+)/)![1]!,
    qemu: session.virsh('version', '--daemon').match(/hypervisor: QEMU (\S+)/)![1]!,
    format,
    machine: 'pc-q35-5.2',
    guest,
    lastPass: session.marks.at(-1)!.pass,
    file,
    lengthBytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  };
  writeFileSync(join(saveImagesDirectory, `${format}.json`), `${JSON.stringify(meta, null, 2)}\n`);
  return bytes.length;
}

/** The machine of the other fixtures as far as libvirt lets it be. */
function domainXml(firmwarePath: string, serialPath: string): string {
  return `<domain type='qemu'>
  <name>wherry</name>
  <uuid>00112233-4455-6677-8899-aabbccddeeff</uuid>
  <memory unit='MiB'>8</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-5.2'>hvm</type>
    <loader readonly='yes' type='rom'>${firmwarePath}</loader>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='${serialPath}'/></serial>
  </devices>
</domain>
`;
}

/** Is a libvirt session daemon with a home of its own, ended and removed when it is closed. */
class LibvirtSession implements AsyncDisposable {
  readonly directory: string;
  readonly #daemon: ChildProcess;
  readonly #ended: Promise<void>;

  private constructor(directory: string) {
    this.directory = directory;
    this.#daemon = spawn('libvirtd', [], { ...this.#identity, stdio: 'ignore' });
    this.#ended = new Promise((resolve) => {
      this.#daemon.once('error', () => resolve());
      this.#daemon.once('close', () => resolve());
    });
  }

  static async start(qemuConf: string): Promise<LibvirtSession> {
    const directory = mkdtempSync(join(tmpdir(), 'wherry-libvirt-'));
    for (const name of ['', 'run', 'config', 'config/libvirt', 'cache', 'data']) {
      mkdirSync(join(directory, name), { recursive: true });
      if (process.getuid?.() === 0) chownSync(join(directory, name), NOBODY, NOBODY);
    }
    writeFileSync(join(directory, 'config/libvirt/qemu.conf'), qemuConf);
    const session = new LibvirtSession(directory);
    for (let i = 0; i < 500; i++) {
      if (existsSync(join(directory, 'run/libvirt/libvirt-sock'))) return session;
      await sleep(20);
    }
    await session[Symbol.asyncDispose]();
    throw new Error('libvirtd did not start: is it installed?');
  }

  /** Every mark that the guest has printed. */
  get marks(): ReturnType<typeof parseMarks> {
    const path = join(this.directory, 'serial.txt');
    return existsSync(path) ? parseMarks(readFileSync(path, 'latin1')) : [];
  }

  write(name: string, content: string | Uint8Array): void {
    writeFileSync(join(this.directory, name), content);
  }

  /** Runs virsh. @throws Error with what it wrote to stderr */
  virsh(...args: readonly string[]): string {
    return execFileSync('virsh', ['-q', '-c', 'qemu:///session', ...args], {
      ...this.#identity,
      encoding: 'utf8',
      stdio: 'pipe',
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.virsh('destroy', 'wherry');
    } catch {
      // saved, so it is gone
    }
    this.#daemon.kill('SIGTERM');
    await this.#ended;
    rmSync(this.directory, { recursive: true, force: true });
  }

  get #identity(): { env: NodeJS.ProcessEnv; uid?: number; gid?: number } {
    const { directory } = this;
    const env = {
      PATH: `${process.env['PATH']}:/usr/sbin`,
      LC_ALL: 'C',
      HOME: directory,
      XDG_RUNTIME_DIR: join(directory, 'run'),
      XDG_CONFIG_HOME: join(directory, 'config'),
      XDG_CACHE_HOME: join(directory, 'cache'),
      XDG_DATA_HOME: join(directory, 'data'),
    };
    return process.getuid?.() === 0 ? { env, uid: NOBODY, gid: NOBODY } : { env };
  }
}

process.exitCode = await main();
