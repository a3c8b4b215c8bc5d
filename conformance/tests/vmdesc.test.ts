import { ByteWriter } from '@wherry/bytes';
import {
  array,
  bool,
  describe,
  field,
  formatVmdesc,
  parseVmdesc,
  pointerArray,
  qtailq,
  struct,
  u8,
  u64,
  VMDESC_STYLES,
  type VmdescStyle,
} from '@wherry/vmstate';
import { expect, describe as suite, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';

const VMDESCRIPTION = 0x06;

/** Gives the text of a stream's vmdesc: it is what the last bytes of the stream are, if they are one. */
function vmdescText(stream: Uint8Array): string | undefined {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  for (let at = stream.length - 1; at > 5; at--) {
    if (stream[at] !== 0x7b || stream[at - 5] !== VMDESCRIPTION) continue;
    if (view.getUint32(at - 4) === stream.length - at) {
      return new TextDecoder().decode(stream.subarray(at));
    }
  }
  return undefined;
}

const texts = listFixtures().flatMap(({ release, case: name }) => {
  const text = vmdescText(loadFixture(release, name).stream);
  return text === undefined ? [] : [{ release: release as VmdescStyle, name, text }];
});

suite.each(VMDESC_STYLES)('the vmdesc of %s', (style) => {
  test.each(texts.filter(({ release }) => release === style))(
    'is written to the same text as QEMU’s: $name',
    ({ text }) => {
      expect(formatVmdesc(parseVmdesc(text), style)).toBe(text);
    },
  );
});

const crw = describe({ name: 's390_crw', version: 1, fields: [] });
const path = describe({
  name: 's390_chp_info',
  version: 1,
  fields: [field('in_use', u8), field('type', u8), field('is_virtual', u8)],
});
const image = describe({
  name: 's390_css_img',
  version: 1,
  fields: [field('chpids', array(struct(path), 256))],
});
/** @see vmstate_css in QEMU's hw/s390x/css.c */
const channels = describe({
  name: 's390_css',
  version: 1,
  fields: [
    field('pending_crws', qtailq(crw)),
    field('sei_pending', bool),
    field('do_crw_mchk', bool),
    field('crws_lost', bool),
    field('max_cssid', u8),
    field('max_ssid', u8),
    field('chnmon_active', bool),
    field('chnmon_area', u64),
    field('css', pointerArray(struct(image), 256)),
    field('default_cssid', u8),
  ],
});

test.each(texts.filter(({ name }) => name === 's390x'))(
  'an array of pointers with holes is described as $release does',
  ({ release, text }) => {
    const chpids = Array.from({ length: 256 }, () => ({ in_use: 0, type: 0, is_virtual: 0 }));
    const state = {
      pending_crws: [],
      sei_pending: false,
      do_crw_mchk: false,
      crws_lost: false,
      max_cssid: 0,
      max_ssid: 0,
      chnmon_active: false,
      chnmon_area: 0n,
      css: Array.from({ length: 256 }, (_, i) => (i === 254 ? { chpids } : null)),
      default_cssid: 254,
    };
    const entry = channels.save(new ByteWriter(), state, { style: release });
    const devices = [{ name: 's390_css', instance_id: 0, ...entry }];
    const ours = formatVmdesc({ page_size: 4096, devices }, release);
    expect(text).toContain(ours.slice(ours.indexOf('[') + 1, ours.lastIndexOf(']')).trim());
  },
);
