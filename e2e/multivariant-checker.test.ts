/** The checker itself: it has nothing against a correct channel, and each rule finds the defect that it is for. */
import { describe, expect, it } from 'vitest';
import { type ParsedPlaylist, parseMediaPlaylist } from './ll-hls-checker.ts';
import {
  checkChannel,
  type MultivariantRule,
  multivariantRules,
  type Sighting,
} from './multivariant-checker.ts';

const TEXT = `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="Deutsch",LANGUAGE="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio-0/index.m3u8?s=1"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",URI="audio-1/index.m3u8?s=1"
#EXT-X-STREAM-INF:BANDWIDTH=1128000,AVERAGE-BANDWIDTH=1128000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=25.000,AUDIO="aac"
video-0/index.m3u8?s=1
#EXT-X-STREAM-INF:BANDWIDTH=328000,AVERAGE-BANDWIDTH=328000,CODECS="avc1.640015,mp4a.40.2",RESOLUTION=426x240,FRAME-RATE=25.000,AUDIO="aac"
video-1/index.m3u8?s=1
`;
const NAMES = ['video-0', 'video-1', 'audio-0', 'audio-1'];
const EPOCH_MS = Date.UTC(2026, 0, 1);
const NUMBERS = [10, 11, 12, 13];
/** What pictures are presented later than decoded, because they are reordered. */
const DELAY_MS = 80;

function playlistOf(name: string): ParsedPlaylist {
  const delayMs = name.startsWith('video') ? DELAY_MS : 0;
  const lines = [
    '#EXTM3U',
    '#EXT-X-TARGETDURATION:2',
    '#EXT-X-MEDIA-SEQUENCE:10',
    '#EXT-X-DISCONTINUITY-SEQUENCE:0',
  ];
  for (const number of NUMBERS) {
    lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(EPOCH_MS + number * 2000 + delayMs).toISOString()}`);
    lines.push('#EXTINF:2.000000,', `${number}.m4s`);
  }
  for (const other of NAMES.filter((one) => one !== name)) {
    lines.push(`#EXT-X-RENDITION-REPORT:URI="../${other}/index.m3u8",LAST-MSN=13,LAST-PART=4`);
  }
  return parseMediaPlaylist(`${lines.join('\n')}\n`, () => undefined);
}

/** Segments of 2 s: 250,000 bytes are 1 Mb/s. */
function sighting(name: string, sizeBytes: number): Sighting {
  const delayMs = name.startsWith('video') ? DELAY_MS : 0;
  return {
    uri: `${name}/index.m3u8?s=1`,
    playlist: playlistOf(name),
    sampleEntries: [name.startsWith('video') ? 'avc1' : 'mp4a'],
    segmentBytes: new Map(NUMBERS.map((number) => [number, sizeBytes])),
    presentedSeconds: new Map(NUMBERS.map((number) => [number, 1000 + number * 2 + delayMs / 1000])),
  };
}

const channel = () => ({
  text: TEXT,
  sightings: [
    sighting('video-0', 250_000),
    sighting('video-1', 50_000),
    sighting('audio-0', 32_000),
    sighting('audio-1', 16_000),
  ],
});
type Channel = ReturnType<typeof channel>;

const edit = (from: string | RegExp, to: string) => (before: Channel) => {
  const text = before.text.replace(from, to);
  if (text === before.text) throw new Error(`${from} is not in the playlist`);
  return { ...before, text };
};
/** Changes the second rendition. */
const change = (how: (one: Sighting) => Partial<Sighting>) => (before: Channel) => ({
  ...before,
  sightings: before.sightings.map((one, i) => (i === 1 ? { ...one, ...how(one) } : one)),
});
const changePlaylist = (how: (playlist: ParsedPlaylist) => Partial<ParsedPlaylist>) =>
  change(({ playlist }) => ({ playlist: { ...playlist, ...how(playlist) } }));

const defects: Record<MultivariantRule, readonly ((before: Channel) => Channel)[]> = {
  syntax: [
    edit('#EXTM3U', '#EXTM4U'),
    edit('#EXT-X-VERSION:7', '#EXT-X-STARLING:7'),
    edit(',URI="audio-1/index.m3u8?s=1"', ''),
    edit('RESOLUTION=1280x720', 'RESOLUTION="1280x720"'),
  ],
  'stream-inf': [
    edit(',FRAME-RATE=25.000', ''),
    edit('AVERAGE-BANDWIDTH=328000', 'AVERAGE-BANDWIDTH=328001'),
    edit(/CODECS="avc1.640015,mp4a.40.2",/, ''),
  ],
  'group-members': [
    edit('NAME="English"', 'NAME="Deutsch"'),
    edit('DEFAULT=NO', 'DEFAULT=YES'),
    edit('LANGUAGE="en"', 'LANGUAGE="de"'),
    edit('DEFAULT=YES,AUTOSELECT=YES', 'DEFAULT=YES,AUTOSELECT=NO'),
  ],
  'groups-used': [edit(/AUDIO="aac"/, 'AUDIO="opus"'), edit(/,AUDIO="aac"/g, '')],
  codecs: [edit('avc1.640015,mp4a.40.2', 'avc1.640015'), edit('avc1.640015', 'hvc1.1.6.L93.B0')],
  bandwidth: [edit('=1128000,', '=1127000,'), edit('BANDWIDTH=328000', 'BANDWIDTH=263000')],
  'variants-differ': [edit('\nvideo-1/', '\nvideo-0/')],
  'target-duration': [changePlaylist(() => ({ targetSeconds: 3 }))],
  numbers: [
    changePlaylist(({ segments }) => ({ segments: segments.slice(0, 2) })),
    changePlaylist(({ segments }) => ({
      segments: segments.map((one) => ({ ...one, number: one.number + 1 })),
    })),
  ],
  boundaries: [
    changePlaylist(({ segments }) => ({
      segments: segments.map((one, i) => (i === 1 ? { ...one, durationSeconds: 1.96 } : one)),
    })),
  ],
  discontinuities: [
    changePlaylist(({ segments }) => ({
      segments: segments.map((one, i) => (i === 3 ? { ...one, discontinuitySequence: 1 } : one)),
    })),
  ],
  dates: [
    change(({ presentedSeconds }) => ({
      presentedSeconds: new Map(
        Array.from(presentedSeconds, ([number, seconds]) => [number, seconds - 0.08]),
      ),
    })),
  ],
  reports: [
    changePlaylist(({ reports }) => ({ reports: reports.slice(1) })),
    changePlaylist(({ reports }) => ({
      reports: reports.map((one) => new Map([...one, ['LAST-MSN', '11']])),
    })),
  ],
};

describe('the checker of several renditions', () => {
  const broken = ({ text, sightings }: Channel) => checkChannel(text, sightings).map(({ rule }) => rule);

  it('has nothing against a correct channel', () => {
    const { text, sightings } = channel();
    expect(checkChannel(text, sightings)).toEqual([]);
  });

  it.each(Object.keys(multivariantRules) as MultivariantRule[])(
    'finds a channel that breaks "%s"',
    (rule) => {
      for (const defect of defects[rule]) expect(broken(defect(channel()))).toContain(rule);
    },
  );
});
