/** The checker itself: it has nothing against a correct stream, and each rule finds the defect that it is for. */
import { fragment } from '@starling/media/fmp4/fragment';
import { initSegment } from '@starling/media/fmp4/init-segment';
import { describe, expect, it } from 'vitest';
import {
  type Exchange,
  LlHlsChecker,
  type LlHlsRule,
  llHlsRules,
  nextPosition,
  parseMediaPlaylist,
} from './ll-hls-checker.ts';

const FIRST = 10;
const PARTS = 5;
const EPOCH_MS = Date.UTC(2026, 0, 1);
const video = {
  kind: 'video',
  trackId: 0,
  codec: 'avc',
  // AVCDecoderConfigurationRecord: version, profile 66, compatibility, level 10, 4-byte lengths, one SPS, one PPS
  config: Uint8Array.from(Buffer.from('0142c00affe100096742c00ada0282c68001000468ce3c80', 'hex')),
  codecString: 'avc1.42c00a',
  widthPx: 160,
  heightPx: 96,
  frameDurationTicks: 3600,
} as const;
const init = Buffer.from(initSegment([video]));

/** Ten frames of 40 ms; the first of a segment is an IDR slice (NAL unit type 5), the others are not (type 1). */
function partBytes(number: number, index: number): Buffer {
  const startTicks = (number * PARTS + index) * 36_000;
  const units = Array.from({ length: 10 }, (_, frame) => {
    const isKey = index === 0 && frame === 0;
    const ticks = startTicks + frame * 3600;
    // A length of 4 bytes, then the NAL unit.
    const data = Uint8Array.of(0, 0, 0, 2, isKey ? 0x65 : 0x41, number & 0xff);
    return {
      kind: 'video' as const,
      trackId: 0,
      dtsTicks: ticks,
      ptsTicks: ticks,
      isRandomAccess: isKey,
      data,
    };
  });
  return Buffer.from(
    fragment({ sequenceNumber: 1, tracks: [{ track: video, units, endTicks: startTicks + 36_000 }] }),
  );
}

/** The playlist when `finished` is the last whole segment and `open` parts of the next are there. */
function playlistText(finished: number, open: number, skipped = 0): string {
  const lines = [
    '#EXTM3U',
    `#EXT-X-VERSION:${skipped > 0 ? 9 : 7}`,
    '#EXT-X-TARGETDURATION:2',
    '#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,HOLD-BACK=6.0,PART-HOLD-BACK=1.200',
    '#EXT-X-PART-INF:PART-TARGET=0.400',
    `#EXT-X-MEDIA-SEQUENCE:${finished - 9}`,
    '#EXT-X-DISCONTINUITY-SEQUENCE:0',
    '#EXT-X-INDEPENDENT-SEGMENTS',
  ];
  if (skipped > 0) lines.push(`#EXT-X-SKIP:SKIPPED-SEGMENTS=${skipped}`);
  // One that goes on, and one that is over but for the first segments.
  const date = (seconds: number) => new Date(EPOCH_MS + seconds * 1000).toISOString();
  lines.push(
    `#EXT-X-DATERANGE:ID="a",CLASS="p",START-DATE="${date(-60)}",DURATION=70.000,X-TITLE="News, weather"`,
    `#EXT-X-DATERANGE:ID="b",CLASS="p",START-DATE="${date(10)}",DURATION=3600,END-DATE="${date(3610)}"`,
  );
  lines.push('#EXT-X-MAP:URI="init.mp4"');
  for (let number = finished - 9 + skipped; number <= finished + 1; number++) {
    const isOpen = number > finished;
    if (isOpen && open === 0) break;
    lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(EPOCH_MS + number * 2000).toISOString()}`);
    const parts = isOpen ? open : (finished - number) * 2 + open * 0.4 < 6 ? PARTS : 0;
    for (let index = 0; index < parts; index++) {
      lines.push(
        `#EXT-X-PART:DURATION=0.400000,URI="${number}.${index}.m4s"${index === 0 ? ',INDEPENDENT=YES' : ''}`,
      );
    }
    if (!isOpen) lines.push('#EXTINF:2.000000,', `${number}.m4s`);
  }
  lines.push(`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="${finished + 1}.${open}.m4s"`);
  return `${lines.join('\n')}\n`;
}

function answer(body: Buffer | string, nowMs: number, headers: Record<string, string>, status = 200) {
  const bytes = Buffer.from(body);
  return { status, headers, body: bytes, sentAtMs: nowMs - 10, firstByteAtMs: nowMs, endedAtMs: nowMs + 1 };
}
const playlistHeaders = (maxAge: number) => ({
  'content-type': 'application/vnd.apple.mpegurl',
  'access-control-allow-origin': '*',
  'content-encoding': 'gzip',
  vary: 'Accept-Encoding',
  'cache-control': `public, max-age=${maxAge}`,
});
function media(bytes: Buffer, nowMs: number) {
  return answer(bytes, nowMs, {
    'content-type': 'video/mp4',
    'access-control-allow-origin': '*',
    'content-length': String(bytes.length),
    'cache-control': 'public, max-age=12, immutable',
  });
}

/** Three segments of a correct stream, as the checker's own client would see it. */
function correctStream(): Exchange[] {
  const exchanges: Exchange[] = [];
  let nowMs = 0;
  exchanges.push({ kind: 'plain', ...answer(playlistText(FIRST, 0), nowMs, playlistHeaders(1)) });
  exchanges.push({ kind: 'init', uri: 'init.mp4', ...media(init, nowMs) });
  for (let number = FIRST + 1; number <= FIRST + 3; number++) {
    for (let index = 0; index < PARTS; index++) {
      nowMs += 400;
      const [finished, open] = index === PARTS - 1 ? [number, 0] : [number - 1, index + 1];
      const full = playlistText(finished, open);
      const asked = { segment: number, part: index };
      exchanges.push({ kind: 'blocking', asked, ...answer(full, nowMs, playlistHeaders(12)) });
      // Ten finished segments; those that end 12 s and more before the end of the last one may go.
      const delta = playlistText(finished, open, 4);
      exchanges.push({ kind: 'delta', full, ...answer(delta, nowMs, playlistHeaders(12)) });
      const uri = `${number}.${index}.m4s`;
      exchanges.push({ kind: 'hint', uri, ...media(partBytes(number, index), nowMs) });
      exchanges.push({ kind: 'part', uri, ...media(partBytes(number, index), nowMs) });
    }
    const whole = Buffer.concat([0, 1, 2, 3, 4].map((index) => partBytes(number, index)));
    exchanges.push({ kind: 'segment', uri: `${number}.m4s`, ...media(whole, nowMs) });
  }
  const last = playlistText(FIRST + 3, 0);
  const stale = { segment: FIRST, part: 0 };
  exchanges.push({
    kind: 'blocking',
    why: 'stale',
    asked: stale,
    ...answer(last, nowMs, playlistHeaders(12)),
  });
  const refusal = (rule: (Exchange & { kind: 'refusal' })['rule'], status: number): Exchange => ({
    kind: 'refusal',
    rule,
    ...answer('', nowMs, status === 404 ? { 'cache-control': 'public, max-age=2' } : {}, status),
  });
  exchanges.push(refusal('refuses-part-alone', 400), refusal('refuses-far-segment', 400));
  exchanges.push(refusal('refuses-far-part', 400), refusal('refuses-unknown', 404));
  const removed = media(partBytes(FIRST, 0), nowMs);
  exchanges.push({ kind: 'removed', what: 'part', uri: '1.0.m4s', ...removed });
  exchanges.push({ kind: 'removed', what: 'segment', uri: '1.m4s', ...removed });
  const past = { segment: FIRST + 4, part: 0 };
  const next = answer(playlistText(FIRST + 3, 1), nowMs + 400, playlistHeaders(12));
  exchanges.push({ kind: 'blocking', why: 'past-end', asked: past, ...next });
  return exchanges;
}

function rulesBroken(exchanges: readonly Exchange[]): Set<LlHlsRule> {
  const checker = new LlHlsChecker({ cadenceToleranceMs: 300 });
  for (const exchange of exchanges) checker.add(exchange);
  return new Set(checker.violations.map((violation) => violation.rule));
}

type Change = (exchange: Exchange) => Partial<Exchange>;
type Defect = (exchanges: Exchange[]) => Exchange[];

/** Changes the exchanges of one kind, or only the `which`th of them. */
function change(kind: Exchange['kind'], how: Change, which?: number): Defect {
  return (exchanges) => {
    let seen = -1;
    return exchanges.map((exchange) => {
      if (exchange.kind !== kind) return exchange;
      seen++;
      return which === undefined || which === seen
        ? ({ ...exchange, ...how(exchange) } as Exchange)
        : exchange;
    });
  };
}

/** Changes the text of one playlist, or of all of them. */
function edit(from: string | RegExp, to: string, which?: number): Defect {
  const how: Change = (exchange) => {
    const before = exchange.body.toString();
    const after = before.replace(from, to);
    if (after === before) throw new Error(`${from} is not in:\n${before}`);
    return { body: Buffer.from(after) };
  };
  return change('blocking', how, which ?? 1);
}

const header = (kind: Exchange['kind'], name: string, value: string): Defect =>
  change(kind, (exchange) => ({ headers: { ...exchange.headers, [name]: value } }), 0);
const status = (kind: Exchange['kind'], value: number, which = 0) =>
  change(kind, () => ({ status: value }), which);
const refused =
  (rule: LlHlsRule): Defect =>
  (exchanges) =>
    exchanges.map((one) => (one.kind === 'refusal' && one.rule === rule ? { ...one, status: 200 } : one));
/** The same bytes with another content. */
const swapBytes = (kind: Exchange['kind'], which: number, bytes: Buffer): Defect =>
  change(kind, () => ({ ...media(bytes, 0), body: bytes }), which);
const later =
  (ms: number): Defect =>
  (exchanges) =>
    exchanges.map((one, index) =>
      index < 30
        ? one
        : {
            ...one,
            sentAtMs: one.sentAtMs + ms,
            firstByteAtMs: one.firstByteAtMs + ms,
            endedAtMs: one.endedAtMs + ms,
          },
    );

/** One or more defects for each rule; the second blocking reload (index 1) shows two parts of segment 11. */
const defects: Record<LlHlsRule, Defect> = {
  'syntax-text': edit('#EXTM3U', '\u{feff}#EXTM3U'),
  'syntax-tag': edit('#EXT-X-PART-INF', '#EXT-X-STARLING:1\n#EXT-X-PART-INF'),
  'syntax-attributes': edit('DURATION=0.400000,URI="11.1.m4s"', 'DURATION=0.400000'),
  'syntax-once': edit('#EXT-X-TARGETDURATION:2', '#EXT-X-TARGETDURATION:2\n#EXT-X-TARGETDURATION:2'),
  'syntax-order': edit(/(#EXT-X-PROGRAM-DATE-TIME:\S+22\S+\n)(#EXT-X-PART\S+\n)/, '$2$1'),
  'live-playlist': edit(/$/, '#EXT-X-ENDLIST\n'),
  version: edit('VERSION:7', 'VERSION:5'),
  'segment-within-target': edit('EXTINF:2.0', 'EXTINF:2.6'),
  'window-length': edit(/(#EXT-X-PROGRAM-DATE-TIME\S+\n(#EXT-X-PART\S+\n)*#EXTINF\S+\n\S+m4s\n){8}/, ''),
  'block-reload': edit('CAN-BLOCK-RELOAD=YES,', ''),
  'hold-back': edit(',HOLD-BACK=6.0', ',HOLD-BACK=5.9'),
  'part-hold-back': edit('PART-HOLD-BACK=1.200', 'PART-HOLD-BACK=1.000'),
  'skip-boundary': edit('CAN-SKIP-UNTIL=12.0', 'CAN-SKIP-UNTIL=11.0'),
  'part-inf': edit(/#EXT-X-PART-INF.*\n/, ''),
  'part-within-target': edit('DURATION=0.400000,URI="11.1', 'DURATION=0.440000,URI="11.1'),
  'part-fills-target': edit('DURATION=0.400000,URI="11.1', 'DURATION=0.320000,URI="11.1'),
  'parts-sum': edit('DURATION=0.400000,URI="10.1', 'DURATION=0.360000,URI="10.1'),
  'parts-listed': edit(/#EXT-X-PART:\S+URI="9\.\S+\n/g, ''),
  'parts-removed': edit(
    '#EXTINF:2.000000,\n3.m4s',
    '#EXT-X-PART:DURATION=0.400000,URI="3.0.m4s",INDEPENDENT=YES\n#EXTINF:2.000000,\n3.m4s',
  ),
  'preload-hint': edit(/#EXT-X-PRELOAD-HINT.*\n/, ''),
  'program-date-time': edit(/#EXT-X-PROGRAM-DATE-TIME:\S+22\.000Z\n/, ''),
  'program-date-time-contiguous': edit('00:00:22.000Z', '00:00:22.100Z'),
  map: edit(/#EXT-X-MAP.*\n/, ''),
  'independent-segments': edit('URI="11.0.m4s",INDEPENDENT=YES', 'URI="11.0.m4s"'),
  'names-unique': edit('URI="11.1.m4s"', 'URI="11.0.m4s"'),
  'daterange-dated': edit(/#EXT-X-PROGRAM-DATE-TIME\S+\n/g, ''),
  'daterange-times': edit('DURATION=3600', 'DURATION=3599'),
  'daterange-removed-said': change(
    'delta',
    (one) => ({
      body: Buffer.from(
        one.body.toString().replace(/(SKIPPED-SEGMENTS=\d+)/, '$1,RECENTLY-REMOVED-DATERANGES="z"'),
      ),
    }),
    1,
  ),
  'rendition-reports': edit(/$/, '#EXT-X-RENDITION-REPORT:URI="index.m3u8",LAST-MSN=11,LAST-PART=1\n'),
  'target-duration-constant': edit('TARGETDURATION:2', 'TARGETDURATION:3'),
  'part-target-constant': edit('PART-TARGET=0.400', 'PART-TARGET=0.450'),
  'server-control-constant': edit('HOLD-BACK=6.0', 'HOLD-BACK=7.0'),
  'media-sequence': edit('MEDIA-SEQUENCE:1\n', 'MEDIA-SEQUENCE:0\n'),
  'discontinuity-sequence': edit('DISCONTINUITY-SEQUENCE:0', 'DISCONTINUITY-SEQUENCE:1'),
  'segment-constant': edit('\n10.m4s', '\nten.m4s'),
  'end-advances': change('blocking', () => ({ body: Buffer.from(playlistText(FIRST, 1)) }), 3),
  'daterange-constant': edit('News, weather', 'Weather'),
  'hint-kept': edit(
    '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="11.2.m4s"',
    '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="12.0.m4s"',
  ),
  'part-cadence': later(800),
  'segment-cadence': later(5000),
  'plain-at-once': change('plain', (one) => ({ sentAtMs: one.firstByteAtMs - 2000 })),
  'blocking-contains': change('blocking', () => ({ body: Buffer.from(playlistText(FIRST, 2)) }), 2),
  'blocking-deadline': change('blocking', (one) => ({ sentAtMs: one.firstByteAtMs - 6500 }), 2),
  'blocking-part-past-end': change('blocking', () => ({ body: Buffer.from(playlistText(FIRST + 3, 0)) }), 16),
  'blocking-stale': status('blocking', 400, 15),
  'refuses-part-alone': refused('refuses-part-alone'),
  'refuses-far-segment': refused('refuses-far-segment'),
  'refuses-far-part': refused('refuses-far-part'),
  'refuses-unknown': refused('refuses-unknown'),
  'delta-merges': change(
    'delta',
    (one) => ({ body: Buffer.from(one.body.toString().replace('\n10.m4s', '\n9.m4s')) }),
    1,
  ),
  'delta-dateranges': change(
    'delta',
    (one) => ({ body: Buffer.from(one.body.toString().replace(/#EXT-X-DATERANGE:ID="a".*\n/, '')) }),
    1,
  ),
  'delta-skips': change('delta', () => ({ body: Buffer.from(playlistText(FIRST, 2, 5)) }), 1),
  'content-type': header('blocking', 'content-type', 'application/x-mpegURL'),
  'content-length': header('segment', 'content-length', '1'),
  cors: header('segment', 'access-control-allow-origin', 'null'),
  gzip: header('blocking', 'content-encoding', 'identity'),
  'cache-playlist': header('plain', 'cache-control', 'max-age=2'),
  'cache-blocking': header('blocking', 'cache-control', 'no-store'),
  'cache-media': header('segment', 'cache-control', 'max-age=2'),
  'cache-not-found': change('refusal', () => ({ headers: { 'cache-control': 'max-age=60' } })),
  'hint-served': status('hint', 404, 3),
  'hint-full-speed': change('hint', (one) => ({ endedAtMs: one.firstByteAtMs + 200 }), 2),
  'part-bytes-constant': swapBytes('part', 2, partBytes(FIRST + 1, 3)),
  'parts-concatenate': swapBytes('segment', 1, partBytes(FIRST + 2, 0)),
  // Part 1 of a segment, which has no key frame, where part 0 is announced, and the other way round.
  'part-independent': swapBytes('hint', 0, partBytes(FIRST + 1, 1)),
  'part-marked': swapBytes('hint', 1, partBytes(FIRST + 1, 0)),
  'part-duration': edit('DURATION=0.400000,URI="11.1', 'DURATION=0.380000,URI="11.1'),
  'part-times-contiguous': swapBytes('hint', 2, partBytes(FIRST + 1, 3)),
  'part-outlives-tag': status('removed', 404, 0),
  'segment-outlives-listing': status('removed', 404, 1),
};

describe('the checker of low-latency HLS', () => {
  it('has nothing against a correct stream', () => {
    const checker = new LlHlsChecker({ cadenceToleranceMs: 0 });
    for (const exchange of correctStream()) checker.add(exchange);
    expect(checker.violations).toEqual([]);
  });

  it.each(Object.keys(llHlsRules) as LlHlsRule[])('finds a stream that breaks "%s"', (rule) => {
    expect(rulesBroken(defects[rule](correctStream()))).toContain(rule);
  });

  it.each([
    [
      'an end before the start',
      'DURATION=3600,END-DATE="2026-01-01T01:00:10.000Z"',
      'END-DATE="2025-01-01T00:00:00Z"',
    ],
    ['an end that another range sets, and a length', ',DURATION=3600', ',END-ON-NEXT=YES,DURATION=3600'],
  ])('finds a date range with %s', (_what, from, to) => {
    expect(rulesBroken(edit(from, to)(correctStream()))).toContain('daterange-times');
  });

  it('finds a whole playlist as a delta update only where there is a discontinuity', () => {
    const whole = change('delta', (one) => ({ body: Buffer.from(one.kind === 'delta' ? one.full : '') }));
    expect(rulesBroken(whole(correctStream()))).toEqual(new Set(['delta-skips']));
  });

  it('asks for the next part, or for the first one of the next segment', () => {
    const next = (text: string) => nextPosition(parseMediaPlaylist(text, () => undefined));
    expect(next(playlistText(10, 2))).toEqual({ segment: 11, part: 2 });
    expect(next(playlistText(10, 0))).toEqual({ segment: 11, part: 0 });
    expect(next(playlistText(10, 2, 4))).toEqual({ segment: 11, part: 2 });
  });
});
