import { describe, expect, test } from 'vitest';
import { encodeAmf0 } from '../rtmp/amf0.ts';
import { decodeLinkMessage, encodeLinkMessage } from './link.ts';

const cue = {
  mediaSequenceNumber: 1_000_001,
  discontinuitySequence: 7,
  startTicks: 90_000_180_000,
  programDateTimeUnixMs: 1_790_000_000_000,
  programmeId: 'demo-1',
  targetDurationMs: 2000,
  isIndependent: true,
};

describe('link messages', () => {
  test('the timeline as docs/formats/cue.md shows it', () => {
    const bytes = Buffer.concat([
      Buffer.from('020012', 'hex'), // string of 18 bytes
      Buffer.from('onStarlingTimeline'),
      Buffer.from('03', 'hex'), // object
      Buffer.from('0007', 'hex'),
      Buffer.from('version'),
      Buffer.from('003ff0000000000000', 'hex'), // number 1
      Buffer.from('000b', 'hex'),
      Buffer.from('epochUnixMs'),
      Buffer.from('004279be09dda00000', 'hex'), // number 1.769e12
      Buffer.from('000009', 'hex'), // end of object
    ]);
    const epochUnixMs = 1_769_000_000_000;
    expect(Buffer.from(encodeLinkMessage({ type: 'timeline', epochUnixMs }))).toEqual(bytes);
    expect(decodeLinkMessage(bytes)).toEqual({ type: 'timeline', epochUnixMs });
  });

  test('each decodes to itself', () => {
    for (const message of [
      { type: 'timeline', epochUnixMs: 0 },
      { type: 'track', kind: 'video', trackId: 0, frameDurationTicks: 3003, widthPx: 1920, heightPx: 1080 },
      {
        type: 'track',
        kind: 'video',
        trackId: 255,
        frameDurationTicks: undefined,
        widthPx: 1,
        heightPx: 65_536,
      },
      { type: 'track', kind: 'audio', trackId: 0, language: undefined },
      { type: 'track', kind: 'audio', trackId: 3, language: 'pt-BR' },
      { type: 'cue', cue },
      { type: 'cue', cue: { ...cue, programme: { title: 'Nächte', startUnixMs: 0, endUnixMs: 1 } } },
      { type: 'cue', cue: { ...cue, programmeId: 'größe '.repeat(20_000), isIndependent: false } },
    ] as const) {
      expect(decodeLinkMessage(encodeLinkMessage(message))).toEqual(message);
    }
  });

  test('fields of a later version-1 sender are ignored', () => {
    const payload = encodeAmf0(['onStarlingTimeline', { version: 1, epochUnixMs: 5, more: ['x'] }]);
    expect(decodeLinkMessage(payload)).toEqual({ type: 'timeline', epochUnixMs: 5 });
  });

  test('what is not ours is not even decoded', () => {
    expect(decodeLinkMessage(encodeAmf0(['onMetaData', { width: 1 }]))).toBeUndefined();
    expect(decodeLinkMessage(encodeAmf0(['onStarlingCues', {}]))).toBeUndefined();
    expect(decodeLinkMessage(Uint8Array.of(0x77, 0xff))).toBeUndefined();
    expect(decodeLinkMessage(new Uint8Array())).toBeUndefined();
  });

  test.each([
    ['another version', ['onStarlingCue', { version: 2, ...cue }], /version is 2/],
    ['no object', ['onStarlingCue'], /no object/],
    ['a list for an object', ['onStarlingCue', [1]], /no object/],
    ['a missing field', ['onStarlingCue', { version: 1, ...cue, startTicks: undefined }], /startTicks/],
    ['a fraction of a tick', ['onStarlingCue', { version: 1, ...cue, startTicks: 0.5 }], /startTicks is 0.5/],
    ['a negative number', ['onStarlingCue', { version: 1, ...cue, mediaSequenceNumber: -1 }], /-1/],
    ['not a number', ['onStarlingCue', { version: 1, ...cue, targetDurationMs: Number.NaN }], /NaN/],
    ['a number for a string', ['onStarlingCue', { version: 1, ...cue, programmeId: 3 }], /programmeId/],
    ['a number for a boolean', ['onStarlingCue', { version: 1, ...cue, isIndependent: 1 }], /isIndependent/],
    [
      'a programme without a title',
      ['onStarlingCue', { version: 1, ...cue, programme: {} }],
      /programme.title/,
    ],
    [
      'a programme that ends before it starts',
      ['onStarlingCue', { version: 1, ...cue, programme: { title: '', startUnixMs: 2, endUnixMs: 1 } }],
      /endUnixMs is 1/,
    ],
    [
      'a title that never ends',
      ['onStarlingCue', { version: 1, ...cue, programme: { title: 'x'.repeat(1001) } }],
      /at most 1000/,
    ],
    ['a programme that is a word', ['onStarlingCue', { version: 1, ...cue, programme: 'news' }], /news/],
    [
      'an unknown kind',
      ['onStarlingTrack', { version: 1, kind: 'text', trackId: 0, frameDurationTicks: null }],
      /text/,
    ],
    [
      'frames of 0 ticks',
      ['onStarlingTrack', { version: 1, kind: 'video', trackId: 0, frameDurationTicks: 0 }],
      /is 0/,
    ],
    [
      'video of no size',
      ['onStarlingTrack', { version: 1, kind: 'video', trackId: 0, frameDurationTicks: null }],
      /widthPx/,
    ],
    ['a track beyond the last', ['onStarlingTrack', { version: 1, kind: 'audio', trackId: 256 }], /is 256/],
    [
      'a language that would break a playlist',
      ['onStarlingTrack', { version: 1, kind: 'audio', trackId: 0, language: 'de"' }],
      /language/,
    ],
    ['no epoch', ['onStarlingTimeline', { version: 1 }], /epochUnixMs is undefined/],
    // What follows was found by fuzzing: each made a playlist that could not be written or read.
    ['an epoch that is no date', ['onStarlingTimeline', { version: 1, epochUnixMs: 8.7e15 }], /to 9999/],
    [
      'a date of five-digit years',
      ['onStarlingCue', { version: 1, ...cue, programDateTimeUnixMs: Date.UTC(10_000, 0) }],
      /programDateTimeUnixMs is 253402300800000/,
    ],
    [
      'a start in the fourth millennium',
      ['onStarlingCue', { version: 1, ...cue, startTicks: 2 ** 53 - 2 }],
      /startTicks/,
    ],
    [
      'a number too long for the name of a segment',
      ['onStarlingCue', { version: 1, ...cue, mediaSequenceNumber: 2 ** 53 - 2 }],
      /mediaSequenceNumber/,
    ],
    [
      'frames of hours',
      ['onStarlingTrack', { version: 1, kind: 'video', trackId: 0, frameDurationTicks: 2 ** 33 }],
      /frameDurationTicks/,
    ],
  ])('refuses %s', (_, values, message) => {
    const payload = encodeAmf0(values);
    expect(() => decodeLinkMessage(payload)).toThrow(/^LINK_BAD_MESSAGE/);
    expect(() => decodeLinkMessage(payload)).toThrow(message);
  });

  test('refuses a cue cut anywhere after its name', () => {
    const payload = encodeLinkMessage({ type: 'cue', cue });
    for (let length = 'onStarlingCue'.length + 3; length < payload.length; length++) {
      expect(() => decodeLinkMessage(payload.subarray(0, length))).toThrow(/^LINK_BAD_MESSAGE/);
    }
  });
});
