import { describe, expect, test } from 'vitest';
import { hex } from '../../test/hex.ts';
import { errorCodeOf } from '../../test/media-error.ts';
import { vp9KeyFrameSize, vp9Track } from './vp9.ts';

/** Contents of vpcC, and the first bytes of key frames, that libvpx wrote (through FFmpeg 5.1). */
const STREAMS = [
  {
    name: 'profile 0, 720p',
    vpcC: '01000000001f820202020000',
    frame: '82498342004ff02cf60638241c184a18',
    size: { widthPx: 1280, heightPx: 720 },
    codecString: 'vp09.00.31.08',
  },
  {
    name: 'profile 1, 4:4:4',
    vpcC: '010000000114860202020000',
    frame: 'a249834200035201e2c0c70483830940',
    size: { widthPx: 426, heightPx: 242 },
    codecString: 'vp09.01.20.08.03.02.02.02.00',
  },
  {
    name: 'profile 2, 10 bit, HDR',
    vpcC: '010000000214a20910090000',
    frame: '92498342500a08078b031c120e0c2c00',
    size: { widthPx: 322, heightPx: 242 },
    codecString: 'vp09.02.20.10.01.09.16.09.00',
  },
  {
    name: 'profile 3, 4:4:4 10 bit',
    vpcC: '010000000314a60202020000',
    frame: 'b124c1a10000a08078b031c120e0c2c0',
    size: { widthPx: 322, heightPx: 242 },
    codecString: 'vp09.03.20.10.03.02.02.02.00',
  },
];

test.each(STREAMS)('$name', ({ vpcC, frame, size, codecString }) => {
  expect(vp9KeyFrameSize(hex(frame))).toEqual(size);
  const record = hex(vpcC).subarray(4);
  const track = {
    kind: 'video',
    trackId: 0,
    codec: 'vp9',
    config: record,
    codecString,
    ...size,
    frameDurationTicks: undefined,
  };
  expect(vp9Track(record, size)).toEqual(track);
  expect(vp9Track(hex(vpcC), size)).toEqual(track); // with version and flags
});

describe('frames that are not key frames', () => {
  test.each([
    ['an inter frame', '86'], // 10 00 0 1 1 0
    ['an inter frame of profile 3', 'b4'], // 10 11 0 0 1 0
    ['an existing frame', '88'], // 10 00 1 000
  ])('%s', (_, frame) => {
    expect(vp9KeyFrameSize(hex(frame))).toBeUndefined();
  });
});

test.each([
  ['another frame marker', () => vp9KeyFrameSize(hex('42498342'))],
  ['another sync code', () => vp9KeyFrameSize(hex('82498343004ff02cf6'))],
  ['a key frame cut short', () => vp9KeyFrameSize(hex('82498342004ff0'))],
  ['an empty frame', () => vp9KeyFrameSize(new Uint8Array())],
  ['profile 4', () => vp9Track(hex('041f820202020000'), { widthPx: 1, heightPx: 1 })],
  ['9 bits', () => vp9Track(hex('001f920202020000'), { widthPx: 1, heightPx: 1 })],
  ['a record cut short', () => vp9Track(hex('001f8202'), { widthPx: 1, heightPx: 1 })],
])('refuses %s', (_, run) => {
  expect(errorCodeOf(run)).toBe('VP9_BAD_CONFIG');
});
