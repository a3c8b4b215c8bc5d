import { describe, expect, test } from 'vitest';
import { CAUSES, causeOf } from './catalogue.ts';
import { explainLine, fillNames, namesIn } from './match.ts';

/** Lines as real releases print them, and what must come of them. */
const SAMPLES: readonly (readonly [
  release: string,
  line: string,
  codes: readonly string[],
  says: string,
])[] = [
  ['7.2', 'qemu-system-x86_64: Not a migration stream', ['NOT_A_STREAM'], '0x5145564d'],
  [
    'wherry',
    "error while saving state for instance 0x0 of device 'timer': pre_save of timer refused the state",
    ['SAVE_FAILED'],
    'a device: timer',
  ],
  [
    'wherry',
    "State blocked by non-migratable device '0000:00:05.0/nvme'; State blocked by non-migratable device '0000:00:06.0/ufs'",
    ['NOT_MIGRATABLE', 'NOT_MIGRATABLE'],
    '0000:00:06.0/ufs',
  ],
  [
    '11.1',
    'qemu-system-x86_64: load of migration failed: Invalid argument: Not a migration stream, magic: 7f454c46 != 5145564d',
    ['LOAD_FAILED_EINVAL', 'NOT_A_STREAM'],
    'magic',
  ],
  ['11.1', 'qemu-system-x86_64: unknown channel magic: 1347375956', ['NOT_A_STREAM'], 'magic'],
  ['11.1', 'unknown channel magic: 369295617', ['TLS_HANDSHAKE'], 'TLS'],
  ['11.1', 'unknown channel magic: 287454020', ['MULTIFD_CHANNEL'], 'multifd'],
  ['7.2', "SaveVM v2 format is obsolete and don't work anymore", ['STREAM_V2'], 'version 2'],
  ['11.1', 'SaveVM v2 format is obsolete and no longer supported', ['STREAM_V2'], 'version 2'],
  ['7.2', 'Unsupported migration stream version', ['STREAM_VERSION'], 'does not exist'],
  [
    '11.1',
    'Unsupported migration stream version, file version 4 != 3',
    ['STREAM_VERSION'],
    'does not exist: 4',
  ],
  [
    '7.2',
    'qemu-system-x86_64: Configuration section missing',
    ['CONFIGURATION_MISSING'],
    'configuration',
  ],
  ['11.1', 'Configuration section missing, 1 != 7', ['CONFIGURATION_MISSING'], 'configuration'],
  [
    '7.2',
    "Machine type received is 'pc-q35-5.2' and local is 'pc-q35-7.2'",
    ['MACHINE_TYPE'],
    'pc-q35-5.2, the destination pc-q35-7.2',
  ],
  [
    '10.0',
    'Capability x-ignore-shared is off, but received capability is on',
    ['CAPABILITY_MISMATCH'],
    'x-ignore-shared is off',
  ],
  [
    '7.2',
    "qemu-system-x86_64: Unknown savevm section or instance '0000:00:03.0/virtio-net' 0. Make sure that your current VM setup matches your saved VM setup, including any hotplugged devices",
    ['UNKNOWN_SECTION'],
    '"0000:00:03.0/virtio-net", instance 0,',
  ],
  [
    '11.1',
    "load of migration failed: Invalid argument: Unknown section or instance 'x' 0. Make sure that your current VM setup matches your saved VM setup, including any hotplugged devices",
    ['LOAD_FAILED_EINVAL', 'UNKNOWN_SECTION'],
    '"x"',
  ],
  ['10.0', 'Unknown savevm section 7', ['UNKNOWN_SECTION_ID'], 'section 7'],
  ['11.1', 'Unknown section 7', ['UNKNOWN_SECTION_ID'], 'section 7'],
  [
    '10.0',
    "savevm: unsupported version 5 for 'ram' v4",
    ['SECTION_VERSION'],
    '"ram" has version 5',
  ],
  ['11.1', "unsupported version 5 for 'ram' v4", ['SECTION_VERSION'], 'up to 4'],
  [
    '10.0',
    'qemu-system-x86_64: Missing section footer for 0000:00:01.0/e1000',
    ['FOOTER_MISSING'],
    '"0000:00:01.0/e1000"',
  ],
  [
    '10.0',
    'Mismatched section id in footer for timer - read 0x3 expected 0x2',
    ['FOOTER_MISMATCH'],
    'id 0x3, not 0x2',
  ],
  ['10.0', 'Unknown savevm section type 126', ['SECTION_TYPE_UNKNOWN'], '126'],
  ['11.1', 'Unknown section type 126', ['SECTION_TYPE_UNKNOWN'], '126'],
  ['11.1', 'check_section_footer: Read section footer failed: -5', ['FOOTER_CUT'], 'footer'],
  ['7.2', 'Expected vmdescription section, but got 0', ['VMDESC_EXPECTED'], 'byte 0 stands'],
  ['10.0', 'Getting RAM address failed', ['TRUNCATED_IN_RAM'], 'RAM'],
  [
    '10.0',
    'apic: incoming version_id 9 is too new for local version_id 3',
    ['VERSION_TOO_NEW'],
    'version 9',
  ],
  [
    '10.0',
    'apic: incoming version_id 1 is too old for local minimum version_id  3',
    ['VERSION_TOO_OLD'],
    'at least 3',
  ],
  [
    '11.1',
    'apic: incoming version_id 1 is too old for local minimum version_id 3',
    ['VERSION_TOO_OLD'],
    'at least 3',
  ],
  [
    '11.1',
    "VM subsection 'ich9_pm/x' in 'ich9_pm' does not exist",
    ['SUBSECTION_UNKNOWN'],
    'ich9_pm/x',
  ],
  ['7.2', 'load of migration failed: No such file or directory', ['LOAD_FAILED_ENOENT'], 'ENOENT'],
  ['7.2', 'load of migration failed: Input/output error', ['LOAD_FAILED_EIO'], 'EIO'],
  ['7.2', 'load of migration failed: Invalid argument', ['LOAD_FAILED_EINVAL'], 'EINVAL'],
  ['7.2', 'load of migration failed: Protocol error', ['LOAD_FAILED'], 'Protocol error'],
  [
    '11.1',
    "Loading VM subsection 'a/b' in 'a' failed: -22: a/b: incoming version_id 2 is too new for local version_id 1",
    ['SUBSECTION_FAILED', 'VERSION_TOO_NEW'],
    'a/b',
  ],
  ['7.2', 'qemu-system-x86_64: 20 != 40', ['VALUE_MISMATCH'], '20 at the destination, 40'],
  ['7.2', 'Invalid value 20 expecting positive value <= 8', ['VALUE_RANGE'], 'at most 8'],
  [
    '7.2',
    'qemu-system-x86_64: get_pci_config_device: Bad config data: i=0x10 read: a1 device: 1 cmask: ff wmask: c0 w1cmask:0',
    ['PCI_CONFIG'],
    'byte 0x10: a1',
  ],
  [
    '7.2',
    'qemu-system-x86_64: Failed to load PCIDevice:config',
    ['FIELD_FAILED'],
    'config, of PCIDevice',
  ],
  [
    '7.2',
    "error while loading state for instance 0x0 of device '0000:00:02.0/virtio-net'",
    ['DEVICE_FAILED'],
    'virtio-net',
  ],
  ['7.2', 'error while loading state section id 2(ram)', ['DEVICE_FAILED'], '"ram"'],
  ['11.1', 'Failed to load vmstate version_id: 4, ret: -22', ['VMSTATE_FAILED'], 'version 4'],
  [
    '7.2',
    'qemu-kvm: Features 0x13a2ffff unsupported. Allowed features: 0x79bfffe7',
    ['VIRTIO_FEATURES'],
    '0x13a2ffff',
  ],
  [
    '7.2',
    'VQ 0 size 0x100 Guest index 0x2 inconsistent with Host index 0x9: delta 0xfff9',
    ['VIRTQUEUE_INDEX'],
    'guest index 0x2',
  ],
  ['7.2', 'error: failed to set MSR 0x48d to 0x5600000016', ['KVM_MSR'], '0x48d'],
  [
    '7.2',
    "State blocked by non-migratable device '0000:00:01.0/nvme'",
    ['NOT_MIGRATABLE'],
    '0000:00:01.0/nvme',
  ],
  ['7.2', 'Unknown ramblock "mem0", cannot accept migration', ['RAM_BLOCK_UNKNOWN'], '"mem0"'],
  ['7.2', "Can't find block pc.ram", ['RAM_BLOCK_UNKNOWN'], 'pc.ram'],
  [
    '11.1',
    'Size mismatch: pc.ram: 0x2000000 != 0x4000000: Invalid argument',
    ['RAM_SIZE'],
    '0x2000000 bytes long at the destination',
  ],
  [
    '11.1',
    'Size too large: /rom@etc/acpi/tables: 0x400000 > 0x200000: Invalid argument',
    ['RAM_SIZE_TOO_LARGE'],
    '0x200000 at most',
  ],
  ['7.2', 'Illegal RAM offset 8000000', ['RAM_OFFSET'], '8000000'],
  ['7.2', 'Unknown combination of migration flags: 0x0', ['RAM_RECORD_INVALID'], '0x0'],
  [
    '7.2',
    'Unknown combination of migration flags: 0x4 (postcopy mode)',
    ['RAM_RECORD_INVALID'],
    '0x4',
  ],
  ['10.0', 'Found a zero page with value 7', ['RAM_ZERO_FILL'], 'byte 7'],
  ['7.2', 'Ack, bad migration stream!', ['RAM_NO_BLOCK'], 'none came'],
  ['11.1', 'Failed to load XBZRLE page - decode error!', ['XBZRLE_INVALID'], 'difference'],
  ['7.2', 'Received an unexpected compressed page', ['COMPRESSED_PAGE'], 'zlib'],
  ['10.0', 'Unexpected RAM flags: 8', ['MAPPED_RAM_FLAGS'], 'flags 8'],
  ['7.2', 'MIG_CMD 0xb unknown (len 0x0)', ['COMMAND_UNKNOWN'], '0xb'],
  ['11.1', 'MIG_CMD 0x8 deprecated (len 0x0)', ['COMMAND_UNKNOWN'], '0x8'],
  ['7.2', 'CMD_PING (0x1) received with no return path', ['NO_RETURN_PATH'], 'ping 0x1'],
  ['11.1', 'RAM postcopy is disabled but have 16 byte advise', ['POSTCOPY_ONE_SIDE'], 'one side'],
  [
    '7.2',
    'Postcopy needs matching RAM page sizes (s=201000 d=1000)',
    ['POSTCOPY_PAGE_SIZES'],
    '201000',
  ],
  [
    '7.2',
    'CMD_POSTCOPY_RUN in wrong postcopy state (2)',
    ['POSTCOPY_RUN_WITHOUT_DISCARD'],
    'without discarding',
  ],
  ['7.2', 'CMD_POSTCOPY_LISTEN in wrong postcopy state (0)', ['POSTCOPY_STATE'], 'LISTEN'],
  ['7.2', "ram_discard_range: Failed to find block 'x'", ['POSTCOPY_DISCARD'], 'discard'],
  ['7.2', 'CMD_PACKAGED: Buffer receive fail ret=12 length=30974', ['PACKAGE_CUT'], '30974'],
  ['7.2', 'Detected IO failure for postcopy. Migration paused.', ['POSTCOPY_PAUSED'], 'resumed'],
  ['11.1', 'MIG_RP_MSG_REQ_PAGES has no previous block', ['PAGE_REQUEST'], 'cannot send'],
  ['11.1', 'Sibling indicated error 1', ['DESTINATION_FAILED'], 'failed'],
  [
    '7.2',
    "Bitmap with the same name ('b0') already exists on destination",
    ['BITMAP_EXISTS'],
    '"b0"',
  ],
  [
    '7.2',
    "Failed to connect to '127.0.0.1:1': Connection refused",
    ['CONNECTION_REFUSED'],
    '127.0.0.1:1: Connection refused',
  ],
  ['10.0', 'Unable to write to socket: Broken pipe', ['CONNECTION_LOST'], 'Broken pipe'],
  [
    '7.2',
    'multifd: received packet magic 5145564d expected 11223344',
    ['MULTIFD_MAGIC'],
    '5145564d',
  ],
  [
    '5.2',
    'failed to receive packet via multifd channel 1: multifd: received channel version 5 expected 2',
    ['MULTIFD_FAILED', 'MULTIFD_CHANNELS'],
    'channel',
  ],
  [
    '11.1',
    'multifd: received channel id 5 exceeds channel count 2',
    ['MULTIFD_CHANNELS'],
    'number 5',
  ],
  ['7.2', 'multifd 0: flags received 2 flags expected 0', ['MULTIFD_COMPRESSION'], 'flags 2'],
  [
    '10.0',
    'Postcopy is not yet compatible with multifd',
    ['CAPABILITY_CONFLICT'],
    'Postcopy and multifd',
  ],
  [
    '11.1',
    'Option multifd-channels expects a value between 1 and 255',
    ['PARAMETER_INVALID'],
    'multifd-channels',
  ],
  ['10.0', "There's a migration process in progress", ['IN_PROGRESS'], 'under way'],
];

/** A line that the message would be, with something in the place of each name. */
function sampleOf(message: string): string {
  return message
    .replace(/[[\]^$]/g, '')
    .replace(/\{\w+#\}/g, '7')
    .replace(/\{\w+\}/g, 'name');
}

describe('the catalogue', () => {
  test('has each code once', () => {
    expect(new Set(CAUSES.map(({ code }) => code)).size).toBe(CAUSES.length);
  });

  test.each(SAMPLES)('explains the line of %s: %s', (_, line, codes, says) => {
    const explained = explainLine(line);
    expect(explained.map(({ cause }) => cause.code)).toEqual(codes);
    expect(explained.map(({ cause, names }) => fillNames(cause.what, names)).join()).toContain(
      says,
    );
  });

  test.each(CAUSES.map((cause) => [cause.code, cause] as const))(
    '%s: each of its messages leads to it',
    (code, cause) => {
      expect(causeOf(code)).toBe(cause);
      for (const message of cause.messages ?? []) {
        const found = explainLine(
          `${message.startsWith('^') ? '' : 'qemu-system-x86_64: '}${sampleOf(message)}`,
        );
        const own = found.find((explanation) => explanation.cause === cause);
        expect(own, `${message}: ${found.map((f) => f.cause.code)}`).toBeDefined();
        for (const text of [cause.what, cause.why, cause.action]) {
          expect(fillNames(text, own?.names), message).not.toMatch(/<\w+>|[{}[\]]/);
        }
      }
    },
  );

  test('names in its texts come from its messages', () => {
    for (const { code, what, why, action, messages = [] } of CAUSES) {
      const known = new Set(messages.flatMap(namesIn));
      for (const name of namesIn(what + why + action)) {
        if (messages.length > 0) expect(known, code).toContain(name);
      }
    }
  });

  test('is quick with a long line that nearly matches', () => {
    const start = performance.now();
    for (const piece of [
      "Unknown section or instance '",
      'Failed to load a:',
      'x is not compatible ',
      '1 != ',
    ]) {
      explainLine(piece.repeat(400));
    }
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test('knows nothing of other text', () => {
    expect(explainLine('the quick brown fox')).toEqual([]);
    expect(explainLine('')).toEqual([]);
  });
});
