/**
 * A strict checker of a Low-Latency HLS rendition. It looks at what a server answers, knows nothing of
 * how it is made, and shares no code with the server.
 *
 * {@link LlHlsChecker} takes exchanges one by one and collects violations of {@link llHlsRules};
 * {@link watchRendition} makes the exchanges against a real server. Memory is bounded by the window.
 *
 * Sources: draft-pantos-hls-rfc8216bis (the section is beside each rule), RFC 8216, and Apple's HLS
 * authoring specification.
 */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { gunzipSync } from 'node:zlib';

export const llHlsRules = {
  // The text of one playlist
  'syntax-text': 'begins with #EXTM3U, ends with a line feed, has no BOM and no control character (4.1)',
  'syntax-tag': 'has no tag that the specification does not define (4.1)',
  'syntax-attributes': 'has well-formed attribute lists, with all required attributes, each once (4.2)',
  'syntax-once': 'has each tag that concerns the whole playlist once (4.4.3)',
  'syntax-order':
    'has numbers and skip before the first segment, and what applies to a segment before its parts (4.4.4.9)',
  'live-playlist': 'has neither EXT-X-ENDLIST nor EXT-X-PLAYLIST-TYPE (6.2.2)',
  version: 'has a version that its tags need: 6 for EXT-X-MAP, 9 for EXT-X-SKIP (8)',
  'segment-within-target': 'has no segment that, rounded, lasts longer than the target duration (4.4.3.1)',
  'window-length': 'lasts at least three target durations (6.2.2)',
  'block-reload': 'offers blocking reload (Apple low-latency profile)',
  'hold-back': 'has a HOLD-BACK of at least three target durations (4.4.3.8)',
  'part-hold-back': 'has a PART-HOLD-BACK of at least three part targets (4.4.3.8)',
  'skip-boundary': 'has a CAN-SKIP-UNTIL of at least six target durations (4.4.3.8)',
  'part-inf': 'has EXT-X-PART-INF where it has parts (4.4.3.7)',
  'part-within-target': 'has no part longer than the part target (4.4.4.9)',
  'part-fills-target':
    'has no part shorter than 85 % of the part target, but INDEPENDENT ones and the last of a segment (4.4.4.9)',
  'parts-sum': 'has segments that last as long as their parts',
  'parts-listed': 'lists the parts of what lies within three target durations of its end (6.2.2)',
  'parts-removed': 'lists no parts of segments further from its end (6.2.2)',
  'preload-hint': 'hints at one part, which it does not list (4.4.5.3)',
  'program-date-time': 'dates each segment, also the open one (Apple low-latency profile)',
  'program-date-time-contiguous':
    'dates each segment at the end of the one before, unless a discontinuity lies between',
  map: 'has an init segment for each segment (4.4.4.5)',
  'independent-segments':
    'with EXT-X-INDEPENDENT-SEGMENTS has segments whose first part is INDEPENDENT (4.4.2.1)',
  'names-unique': 'gives each segment and part an address of its own',
  'daterange-dated': 'has dated segments where it has EXT-X-DATERANGE (4.4.5.1)',
  'daterange-times':
    'has date ranges whose END-DATE, DURATION and PLANNED-DURATION are possible and agree, and END-ON-NEXT with a CLASS and without them (4.4.5.1)',
  'daterange-removed-said':
    'names RECENTLY-REMOVED-DATERANGES only where CAN-SKIP-DATERANGES is said (4.4.5.2)',
  'rendition-reports':
    'reports each other rendition once, without a query, and not itself (4.4.5.4, appendix B.1)',
  // One playlist after another
  'target-duration-constant': 'never changes the target duration (4.4.3.1)',
  'part-target-constant': 'never changes the part target (4.4.3.7)',
  'server-control-constant': 'never changes EXT-X-SERVER-CONTROL',
  'media-sequence': 'never counts the media sequence number back (6.2.2)',
  'discontinuity-sequence': 'gives a segment the same discontinuity sequence number for ever (6.2.2)',
  'segment-constant': 'never changes a listed segment or part (6.2.1)',
  'end-advances': 'never takes back a segment or part at its end (6.2.1)',
  'daterange-constant': 'never gives an attribute of a date range two values (4.4.5.1)',
  'hint-kept': 'lists next the part that it hinted at (6.2.6)',
  'part-cadence': 'adds a part in each part target, within the tolerance given (6.2.1)',
  'segment-cadence': 'adds a segment in one and a half target durations (6.2.1)',
  // Directives
  'plain-at-once': 'answers a request without directives at once, with 200 (6.2.5)',
  'blocking-contains': 'answers a blocking reload with a playlist that has what was asked for (6.2.5.2)',
  'blocking-deadline': 'answers a blocking reload within three target durations (6.2.5.2)',
  'blocking-part-past-end': 'takes a part past the end of a segment for part 0 of the next (6.2.5.2)',
  'blocking-stale': 'answers a request for something old with the playlist as it is (6.2.5.2)',
  'refuses-part-alone': 'refuses _HLS_part without _HLS_msn with 400 (6.2.5.2)',
  'refuses-far-segment': 'refuses the third segment after the last one with 400 (6.2.5.2)',
  'refuses-far-part': 'refuses a part beyond the Advance Part Limit with 400 (6.2.5.2)',
  'refuses-unknown': 'answers 404 for a part or segment that neither is nor is hinted at (6.2.6)',
  'delta-merges': 'gives delta updates that agree with the whole playlist (6.2.5.1)',
  'delta-dateranges':
    'has in delta updates all date ranges, but where CAN-SKIP-DATERANGES is said and they were asked for with v2 (6.2.5.1)',
  'delta-skips': 'skips in delta updates all that lies beyond the skip boundary, and nothing else (6.2.5.1)',
  // HTTP
  'content-type': 'uses application/vnd.apple.mpegurl and video/mp4 (4)',
  'content-length': 'states the length of media, and keeps to it',
  cors: 'can be read by pages from everywhere (appendix B.1)',
  gzip: 'compresses playlists for those who take it, and says that it varies (appendix B.1)',
  'cache-playlist': 'lets caches keep a plain playlist for half a target duration (appendix B)',
  'cache-blocking': 'lets caches keep a blocking answer for six target durations (appendix B)',
  'cache-media': 'lets caches keep media for six target durations or more (appendix B)',
  'cache-not-found': 'lets caches keep a 404 for one target duration at most (appendix B)',
  // Media
  'hint-served': 'answers the request for a hinted part with that part (6.2.6)',
  'hint-full-speed': 'sends no byte of a hinted part until all of it can go at once (6.2.6)',
  'part-bytes-constant': 'gives a listed part the bytes that it had as a hint',
  'parts-concatenate': 'has segments that are their parts, one after another (4.4.4.9)',
  'part-independent': 'has a key frame first in each part that is INDEPENDENT (4.4.4.9)',
  'part-marked': 'marks each part that begins with a key frame as INDEPENDENT (4.4.4.9)',
  'part-duration': 'has parts that last as long as their EXT-X-PART says',
  'part-times-contiguous': 'has parts whose decode times follow one another, track by track',
  'part-outlives-tag': 'serves a part for three target durations after its tag is gone (6.2.2)',
  'segment-outlives-listing': 'serves a segment for a while after it left the playlist (6.2.2)',
} as const;

export type LlHlsRule = keyof typeof llHlsRules;

export interface Violation {
  readonly rule: LlHlsRule;
  readonly detail: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Without the content encoding. */
  readonly body: Buffer;
  readonly sentAtMs: number;
  readonly firstByteAtMs: number;
  readonly endedAtMs: number;
}

/** Where a playlist ends: `part` is undefined for a whole segment. */
interface Position {
  readonly segment: number;
  readonly part: number | undefined;
}

/** What was asked of the server, and what it answered. */
export type Exchange = Answer &
  (
    | { readonly kind: 'plain' }
    /** `why` says which rule is at stake when it is not the ordinary reload. */
    | { readonly kind: 'blocking'; readonly asked: Position; readonly why?: 'past-end' | 'stale' }
    /** Answered at the same moment as `full`. */
    | { readonly kind: 'delta'; readonly full: string }
    | { readonly kind: 'hint' | 'part'; readonly uri: string }
    | { readonly kind: 'segment' | 'init'; readonly uri: string }
    | { readonly kind: 'removed'; readonly what: 'part' | 'segment'; readonly uri: string }
    | {
        readonly kind: 'refusal';
        readonly rule: 'refuses-part-alone' | 'refuses-far-segment' | 'refuses-far-part' | 'refuses-unknown';
      }
  );

interface ParsedPart {
  readonly uri: string;
  readonly durationSeconds: number;
  readonly isIndependent: boolean;
}

interface ParsedSegment {
  readonly number: number;
  /** Undefined for the open segment. */
  uri: string | undefined;
  durationSeconds: number;
  readonly parts: ParsedPart[];
  mapUri: string | undefined;
  dateUnixMs: number | undefined;
  isDiscontinuous: boolean;
  discontinuitySequence: number;
}

export interface ParsedPlaylist {
  readonly version: number;
  readonly targetSeconds: number;
  readonly partTargetSeconds: number | undefined;
  readonly serverControl: ReadonlyMap<string, string>;
  readonly mediaSequence: number;
  readonly isIndependentSegments: boolean;
  readonly skippedCount: number;
  /** The last may be open. */
  readonly segments: readonly ParsedSegment[];
  readonly hintUris: readonly string[];
  /** The tags, one by one. */
  readonly dateRanges: readonly ReadonlyMap<string, string>[];
  readonly saysRemovedDateRanges: boolean;
  readonly reports: readonly ReadonlyMap<string, string>[];
}

export type Report = (rule: LlHlsRule, detail: string) => void;

/** Attributes of each tag that has a list of them: those that it must and those that it may have, with their form. */
const DECIMAL = /^\d+$/;
const FLOAT = /^\d+(\.\d+)?$/;
const QUOTED = /^"[^"\r\n]*"$/;
const YES = /^YES$/;
const HEXADECIMAL = /^0[xX][0-9A-F]+$/;
const DATE = /^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"$/;
const attributeLists: Record<string, AttributeForm> = {
  'EXT-X-SERVER-CONTROL': {
    must: {},
    may: {
      'CAN-BLOCK-RELOAD': YES,
      'CAN-SKIP-UNTIL': FLOAT,
      'CAN-SKIP-DATERANGES': YES,
      'HOLD-BACK': FLOAT,
      'PART-HOLD-BACK': FLOAT,
    },
  },
  'EXT-X-PART-INF': { must: { 'PART-TARGET': FLOAT }, may: {} },
  'EXT-X-PART': {
    must: { URI: QUOTED, DURATION: FLOAT },
    may: { INDEPENDENT: YES, BYTERANGE: QUOTED, GAP: YES },
  },
  'EXT-X-PRELOAD-HINT': {
    must: { TYPE: /^(PART|MAP)$/, URI: QUOTED },
    may: { 'BYTERANGE-START': DECIMAL, 'BYTERANGE-LENGTH': DECIMAL },
  },
  'EXT-X-RENDITION-REPORT': { must: { URI: QUOTED, 'LAST-MSN': DECIMAL }, may: { 'LAST-PART': DECIMAL } },
  'EXT-X-SKIP': { must: { 'SKIPPED-SEGMENTS': DECIMAL }, may: { 'RECENTLY-REMOVED-DATERANGES': QUOTED } },
  'EXT-X-MAP': { must: { URI: QUOTED }, may: { BYTERANGE: QUOTED } },
  'EXT-X-DATERANGE': {
    must: { ID: QUOTED, 'START-DATE': DATE },
    may: {
      CLASS: QUOTED,
      CUE: /^"(PRE|POST|ONCE)(,(PRE|POST|ONCE))*"$/,
      'END-DATE': DATE,
      DURATION: FLOAT,
      'PLANNED-DURATION': FLOAT,
      'END-ON-NEXT': YES,
      'SCTE35-CMD': HEXADECIMAL,
      'SCTE35-OUT': HEXADECIMAL,
      'SCTE35-IN': HEXADECIMAL,
    },
    // Of applications' own: quoted strings, hexadecimal sequences and numbers.
    named: { name: /^X-[A-Z0-9-]+$/, form: /^("[^"\r\n]*"|0[xX][0-9A-F]+|\d+(\.\d+)?)$/ },
  },
};

/** Tags without attributes, with the form of their value. */
const plainTags: Record<string, RegExp> = {
  EXTM3U: /^$/,
  'EXT-X-VERSION': DECIMAL,
  'EXT-X-TARGETDURATION': DECIMAL,
  'EXT-X-MEDIA-SEQUENCE': DECIMAL,
  'EXT-X-DISCONTINUITY-SEQUENCE': DECIMAL,
  'EXT-X-INDEPENDENT-SEGMENTS': /^$/,
  'EXT-X-DISCONTINUITY': /^$/,
  'EXT-X-PROGRAM-DATE-TIME': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/,
  EXTINF: /^\d+(\.\d+)?,[^\r\n]*$/,
  'EXT-X-ENDLIST': /^$/,
  'EXT-X-PLAYLIST-TYPE': /^(EVENT|VOD)$/,
};

const onceTags = [
  'EXTM3U',
  'EXT-X-VERSION',
  'EXT-X-TARGETDURATION',
  'EXT-X-MEDIA-SEQUENCE',
  'EXT-X-DISCONTINUITY-SEQUENCE',
  'EXT-X-SERVER-CONTROL',
  'EXT-X-PART-INF',
];
const atMostOnceTags = ['EXT-X-INDEPENDENT-SEGMENTS', 'EXT-X-SKIP'];

function parseAttributes(tag: string, text: string, report: Report): Map<string, string> {
  return readAttributes(tag, text, attributeLists[tag] ?? { must: {}, may: {} }, (detail) =>
    report('syntax-attributes', detail),
  );
}

/** The attributes that a tag must and may have, with the form of their values. */
export interface AttributeForm {
  readonly must: Readonly<Record<string, RegExp>>;
  readonly may: Readonly<Record<string, RegExp>>;
  /** Others that it may have, by what their name is like. */
  readonly named?: { readonly name: RegExp; readonly form: RegExp };
}

/** Reads an attribute list (4.2), quotes taken off. */
export function readAttributes(
  tag: string,
  text: string,
  form: AttributeForm,
  complain: (detail: string) => void,
): Map<string, string> {
  const attributes = new Map<string, string>();
  const pattern = /([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(,|$)/y;
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text);
    if (match === null) {
      complain(`${tag}: ${text}`);
      return attributes;
    }
    const [, name = '', value = ''] = match;
    const named = form.named?.name.test(name) === true ? form.named.form : undefined;
    const expected = form.must[name] ?? form.may[name] ?? named;
    if (attributes.has(name) || expected === undefined || !expected.test(value)) {
      complain(`${tag}: ${name}=${value}`);
    }
    attributes.set(name, value.replace(/^"|"$/g, ''));
  }
  for (const name of Object.keys(form.must)) {
    if (!attributes.has(name)) complain(`${tag} without ${name}: ${text}`);
  }
  return attributes;
}

/** Reads a media playlist, and reports what its text alone does wrong. */
export function parseMediaPlaylist(text: string, report: Report): ParsedPlaylist {
  if (!text.startsWith('#EXTM3U\n') || !text.endsWith('\n') || /[^\P{Cc}\r\n]/u.test(text)) {
    report('syntax-text', JSON.stringify(text.slice(0, 60)));
  }
  const counts = new Map<string, number>();
  const values = new Map<string, string>();
  const segments: ParsedSegment[] = [];
  const hintUris: string[] = [];
  const dateRanges: Map<string, string>[] = [];
  let saysRemovedDateRanges = false;
  const reports: Map<string, string>[] = [];
  let serverControl = new Map<string, string>();
  let partTargetSeconds: number | undefined;
  let skippedCount = 0;
  let mapUri: string | undefined;
  let discontinuitySequence = 0;
  let open: ParsedSegment | undefined;
  let hasDuration = false;
  const current = (): ParsedSegment => {
    open ??= {
      number: Number(values.get('EXT-X-MEDIA-SEQUENCE') ?? 0) + skippedCount + segments.length,
      uri: undefined,
      durationSeconds: 0,
      parts: [],
      mapUri,
      dateUnixMs: undefined,
      isDiscontinuous: false,
      discontinuitySequence,
    };
    return open;
  };
  const hasBegun = () => open !== undefined || segments.length > 0;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    if (!line.startsWith('#')) {
      const segment = current();
      if (!hasDuration) report('syntax-order', `${line} without EXTINF`);
      segment.uri = line;
      segments.push(segment);
      open = undefined;
      hasDuration = false;
      continue;
    }
    if (!line.startsWith('#EXT')) continue;
    const [, tag = '', value = ''] = /^#([^:]+):?(.*)$/.exec(line) ?? [];
    counts.set(tag, (counts.get(tag) ?? 0) + 1);
    if (plainTags[tag] === undefined && attributeLists[tag] === undefined) report('syntax-tag', line);
    if (plainTags[tag]?.test(value) === false) report('syntax-attributes', line);
    values.set(tag, value);
    const attributes =
      attributeLists[tag] === undefined ? new Map<string, string>() : parseAttributes(tag, value, report);
    const isHeader = onceTags.includes(tag) || tag === 'EXT-X-SKIP';
    if (isHeader && hasBegun()) report('syntax-order', `${line} after the first segment`);
    const appliesToParts = ['EXT-X-MAP', 'EXT-X-DISCONTINUITY', 'EXT-X-PROGRAM-DATE-TIME'].includes(tag);
    if (appliesToParts && (open?.parts.length ?? 0) > 0) report('syntax-order', `${line} after a part`);
    switch (tag) {
      case 'EXT-X-DISCONTINUITY-SEQUENCE':
        discontinuitySequence = Number(value);
        break;
      case 'EXT-X-SERVER-CONTROL':
        serverControl = attributes;
        break;
      case 'EXT-X-PART-INF':
        partTargetSeconds = Number(attributes.get('PART-TARGET'));
        break;
      case 'EXT-X-SKIP':
        skippedCount = Number(attributes.get('SKIPPED-SEGMENTS'));
        saysRemovedDateRanges = attributes.has('RECENTLY-REMOVED-DATERANGES');
        break;
      case 'EXT-X-DATERANGE':
        dateRanges.push(attributes);
        break;
      case 'EXT-X-MAP':
        mapUri = attributes.get('URI');
        current().mapUri = mapUri;
        break;
      case 'EXT-X-DISCONTINUITY':
        discontinuitySequence++;
        current().isDiscontinuous = true;
        current().discontinuitySequence = discontinuitySequence;
        break;
      case 'EXT-X-PROGRAM-DATE-TIME':
        current().dateUnixMs = Date.parse(value);
        break;
      case 'EXT-X-PART':
        if (hasDuration) report('syntax-order', `${line} after EXTINF`);
        current().parts.push({
          uri: attributes.get('URI') ?? '',
          durationSeconds: Number(attributes.get('DURATION')),
          isIndependent: attributes.get('INDEPENDENT') === 'YES',
        });
        break;
      case 'EXTINF':
        current().durationSeconds = Number.parseFloat(value);
        hasDuration = true;
        break;
      case 'EXT-X-PRELOAD-HINT':
        if (attributes.get('TYPE') === 'PART') hintUris.push(attributes.get('URI') ?? '');
        break;
      case 'EXT-X-RENDITION-REPORT':
        reports.push(attributes);
        break;
      case 'EXT-X-ENDLIST':
      case 'EXT-X-PLAYLIST-TYPE':
        report('live-playlist', line);
        break;
    }
  }
  if (open !== undefined) {
    open.durationSeconds = sum(open.parts.map((part) => part.durationSeconds));
    segments.push(open);
  }
  for (const tag of onceTags) {
    if (counts.get(tag) !== 1) report('syntax-once', `${tag} ${counts.get(tag) ?? 0} times`);
  }
  for (const tag of atMostOnceTags) {
    if ((counts.get(tag) ?? 0) > 1) report('syntax-once', `${tag} ${counts.get(tag)} times`);
  }
  return {
    version: Number(values.get('EXT-X-VERSION') ?? 1),
    targetSeconds: Number(values.get('EXT-X-TARGETDURATION')),
    partTargetSeconds,
    serverControl,
    mediaSequence: Number(values.get('EXT-X-MEDIA-SEQUENCE') ?? 0),
    isIndependentSegments: counts.has('EXT-X-INDEPENDENT-SEGMENTS'),
    skippedCount,
    segments,
    hintUris,
    dateRanges,
    saysRemovedDateRanges,
    reports,
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Of the durations in a playlist, which are rounded to microseconds. */
const DURATION_TOLERANCE_S = 0.000_01;
/** Dates are in whole milliseconds, rounded down. */
const DATE_TOLERANCE_MS = 1.5;

/** What one playlist does wrong. */
function checkPlaylist(playlist: ParsedPlaylist, otherRenditions: number, report: Report): void {
  const { targetSeconds, partTargetSeconds = Number.NaN, segments, serverControl } = playlist;
  const neededVersion = playlist.skippedCount > 0 ? 9 : segments.some((one) => one.mapUri) ? 6 : 1;
  if (playlist.version < neededVersion) report('version', `${playlist.version}, needed ${neededVersion}`);
  const control = (name: string) => Number(serverControl.get(name) ?? 0);
  if (serverControl.get('CAN-BLOCK-RELOAD') !== 'YES') report('block-reload', 'no CAN-BLOCK-RELOAD=YES');
  const least = (rule: LlHlsRule, name: string, seconds: number) => {
    if (!(control(name) >= seconds - 1e-9)) report(rule, `${name}=${control(name)}, at least ${seconds}`);
  };
  least('hold-back', 'HOLD-BACK', 3 * targetSeconds);
  least('part-hold-back', 'PART-HOLD-BACK', 3 * partTargetSeconds);
  least('skip-boundary', 'CAN-SKIP-UNTIL', 6 * targetSeconds);

  const finished = segments.filter((segment) => segment.uri !== undefined);
  const lengthSeconds = sum(finished.map((segment) => segment.durationSeconds));
  if (playlist.skippedCount === 0 && lengthSeconds < 3 * targetSeconds) {
    report('window-length', `${lengthSeconds} s with a target duration of ${targetSeconds} s`);
  }
  const uris = segments.flatMap((one) => [one.uri ?? '', ...one.parts.map((part) => part.uri)]);
  const names = uris.filter((uri) => uri !== '');
  if (new Set(names).size !== names.length) report('names-unique', names.join(' '));
  const [hint] = playlist.hintUris;
  if (playlist.hintUris.length !== 1 || hint === undefined || names.includes(hint)) {
    report('preload-hint', playlist.hintUris.join(' '));
  }
  if (segments.some((one) => one.parts.length > 0) && !(partTargetSeconds > 0)) report('part-inf', 'none');

  let toEndSeconds = 0;
  for (const segment of segments.toReversed()) {
    const isOpen = segment.uri === undefined;
    const hasParts = segment.parts.length > 0;
    if (hasParts && toEndSeconds > 3 * targetSeconds) {
      report('parts-removed', `segment ${segment.number} ends ${toEndSeconds} s before the end`);
    }
    if (!hasParts && toEndSeconds < 3 * targetSeconds - DURATION_TOLERANCE_S) {
      report('parts-listed', `segment ${segment.number} ends ${toEndSeconds} s before the end`);
    }
    toEndSeconds += segment.durationSeconds;
    const inParts = sum(segment.parts.map((part) => part.durationSeconds));
    if (!isOpen && hasParts && Math.abs(inParts - segment.durationSeconds) > DURATION_TOLERANCE_S) {
      report(
        'parts-sum',
        `segment ${segment.number}: ${inParts} s in parts, EXTINF ${segment.durationSeconds} s`,
      );
    }
    if (!isOpen && Math.round(segment.durationSeconds) > targetSeconds) {
      report('segment-within-target', `segment ${segment.number}: ${segment.durationSeconds} s`);
    }
    if (segment.mapUri === undefined) report('map', `segment ${segment.number}`);
    if (segment.dateUnixMs === undefined) report('program-date-time', `segment ${segment.number}`);
    if (playlist.isIndependentSegments && hasParts && segment.parts[0]?.isIndependent !== true) {
      report('independent-segments', `segment ${segment.number}`);
    }
    for (const [index, part] of segment.parts.entries()) {
      const isLast = !isOpen && index === segment.parts.length - 1;
      if (part.durationSeconds > partTargetSeconds + 1e-9)
        report('part-within-target', `${part.uri}: ${part.durationSeconds} s`);
      if (part.durationSeconds < 0.85 * partTargetSeconds && !part.isIndependent && !isLast) {
        report('part-fills-target', `${part.uri}: ${part.durationSeconds} s`);
      }
    }
  }
  for (const [index, segment] of segments.entries()) {
    const previous = segments[index - 1];
    if (previous?.dateUnixMs === undefined || segment.dateUnixMs === undefined || segment.isDiscontinuous)
      continue;
    const expectedMs = previous.dateUnixMs + previous.durationSeconds * 1000;
    if (Math.abs(segment.dateUnixMs - expectedMs) > DATE_TOLERANCE_MS) {
      report(
        'program-date-time-contiguous',
        `segment ${segment.number}: ${segment.dateUnixMs - expectedMs} ms off`,
      );
    }
  }
  checkDateRanges(playlist, report);
  const reported = new Set(playlist.reports.map((one) => one.get('URI') ?? ''));
  const hasQuery = [...reported].some((uri) => uri.includes('?'));
  if (reported.size !== playlist.reports.length || reported.size !== otherRenditions || hasQuery) {
    report('rendition-reports', `${[...reported].join(' ')}; other renditions: ${otherRenditions}`);
  }
}

function checkDateRanges(playlist: ParsedPlaylist, report: Report): void {
  const { dateRanges, segments, serverControl } = playlist;
  if (dateRanges.length > 0 && segments.every(({ dateUnixMs }) => dateUnixMs === undefined)) {
    report('daterange-dated', 'no EXT-X-PROGRAM-DATE-TIME');
  }
  if (playlist.saysRemovedDateRanges && serverControl.get('CAN-SKIP-DATERANGES') !== 'YES') {
    report('daterange-removed-said', 'without CAN-SKIP-DATERANGES');
  }
  for (const [id, range] of mergedDateRanges(dateRanges, report)) {
    const startMs = Date.parse(range.get('START-DATE') ?? '');
    const endMs = Date.parse(range.get('END-DATE') ?? '');
    const durationMs = 1000 * Number(range.get('DURATION') ?? Number.NaN);
    if (endMs < startMs) report('daterange-times', `${id} ends before it starts`);
    if (Math.abs(startMs + durationMs - endMs) > DATE_TOLERANCE_MS) {
      report('daterange-times', `${id}: END-DATE and DURATION`);
    }
    const isOpen = range.get('END-ON-NEXT') === 'YES';
    if (isOpen && (!range.has('CLASS') || range.has('DURATION') || range.has('END-DATE'))) {
      report('daterange-times', `${id}: END-ON-NEXT`);
    }
  }
}

/** The date ranges by id: tags of one id add attributes, and agree in those that both have (4.4.5.1). */
function mergedDateRanges(
  tags: readonly ReadonlyMap<string, string>[],
  report: Report,
): Map<string, Map<string, string>> {
  const ranges = new Map<string, Map<string, string>>();
  for (const tag of tags) {
    const id = tag.get('ID') ?? '';
    const range = ranges.get(id) ?? new Map<string, string>();
    ranges.set(id, range);
    for (const [name, value] of tag) {
      const before = range.get(name);
      if (before !== undefined && before !== value) {
        report('daterange-constant', `${id}: ${name} ${before} -> ${value}`);
      }
      range.set(name, value);
    }
  }
  return ranges;
}

/** Number of the newest segment and how many parts of it are listed; for a finished one all of them. */
function endOf(playlist: ParsedPlaylist): { segment: number; parts: number; isOpen: boolean } {
  const last = playlist.segments.at(-1);
  return {
    segment: last?.number ?? -1,
    parts: last?.parts.length ?? 0,
    isOpen: last !== undefined && last.uri === undefined,
  };
}

function contains(playlist: ParsedPlaylist, asked: Position): boolean {
  const end = endOf(playlist);
  if (end.segment !== asked.segment)
    return (
      end.segment > asked.segment &&
      (asked.part !== undefined || !end.isOpen || end.segment - 1 >= asked.segment)
    );
  return asked.part === undefined ? !end.isOpen : end.parts > asked.part;
}

/** What an ordinary player asks for next. */
export function nextPosition(playlist: ParsedPlaylist): { segment: number; part: number } {
  const end = endOf(playlist);
  return end.isOpen ? { segment: end.segment, part: end.parts } : { segment: end.segment + 1, part: 0 };
}

/** Same segment, as far as both playlists show it: parts may have been added or removed. */
function isSameSegment(a: ParsedSegment, b: ParsedSegment): boolean {
  const isSamePart = (part: ParsedPart, index: number) => {
    const other = b.parts[index];
    return (
      other === undefined ||
      (part.uri === other.uri &&
        part.durationSeconds === other.durationSeconds &&
        part.isIndependent === other.isIndependent)
    );
  };
  const isSameEnd =
    a.uri === undefined ||
    b.uri === undefined ||
    (a.uri === b.uri && a.durationSeconds === b.durationSeconds);
  return isSameEnd && a.mapUri === b.mapUri && a.dateUnixMs === b.dateUnixMs && a.parts.every(isSamePart);
}

export interface CheckerOptions {
  /** Renditions in the multivariant playlist beside this one. */
  readonly otherRenditions: number;
  /** By how much the machine may delay a part or a segment. */
  readonly cadenceToleranceMs: number;
  /** How long a part may take from its first byte to its last. */
  readonly fullSpeedMs: number;
}

const defaultOptions: CheckerOptions = { otherRenditions: 0, cadenceToleranceMs: 1000, fullSpeedMs: 100 };

/** Takes exchanges in the order of their ends, and says which rules they broke. */
export class LlHlsChecker {
  readonly violations: Violation[] = [];
  readonly #options: CheckerOptions;
  #previous: ParsedPlaylist | undefined;
  #previousAtMs = 0;
  #lastSegmentAtMs: number | undefined;
  /** The parts and segments that a playlist has listed, by address, as long as they may come up. */
  readonly #parts = new Map<
    string,
    { segment: number; tag: ParsedPart | undefined; bytes: Buffer | undefined }
  >();
  readonly #init = new Map<string, TrackInfo[]>();
  #lastDecodeEnd: { segment: number; ends: Map<number, number> } | undefined;

  constructor(options: Partial<CheckerOptions> = {}) {
    this.#options = { ...defaultOptions, ...options };
  }

  /** The newest playlist seen. */
  get playlist(): ParsedPlaylist | undefined {
    return this.#previous;
  }

  add(exchange: Exchange): void {
    switch (exchange.kind) {
      case 'plain':
        if (exchange.status !== 200 || exchange.firstByteAtMs - exchange.sentAtMs > 1000) {
          this.#report(
            'plain-at-once',
            `${exchange.status} after ${exchange.firstByteAtMs - exchange.sentAtMs} ms`,
          );
        }
        return this.#addPlaylist(exchange, 'cache-playlist');
      case 'blocking':
        return this.#addBlocking(exchange);
      case 'delta':
        return this.#addDelta(exchange);
      case 'hint':
      case 'part':
        return this.#addPart(exchange.kind, exchange.uri, exchange);
      case 'segment':
        this.#checkMedia(exchange);
        return this.#addSegment(exchange.uri, exchange);
      case 'init':
        this.#checkMedia(exchange);
        this.#init.set(exchange.uri, readTracks(exchange.body));
        return;
      case 'removed':
        if (exchange.status !== 200) {
          const rule = exchange.what === 'part' ? 'part-outlives-tag' : 'segment-outlives-listing';
          this.#report(rule, `${exchange.uri}: ${exchange.status}`);
        }
        return;
      case 'refusal': {
        const status = exchange.rule === 'refuses-unknown' ? 404 : 400;
        if (exchange.status !== status) this.#report(exchange.rule, `${exchange.status}`);
        const maxAge = maxAgeSeconds(exchange);
        const targetSeconds = this.#previous?.targetSeconds ?? 1;
        if (exchange.status === 404 && !(maxAge !== undefined && maxAge <= targetSeconds)) {
          this.#report('cache-not-found', `max-age ${maxAge}`);
        }
        return;
      }
    }
  }

  #report: Report = (rule, detail) => {
    this.violations.push({ rule, detail });
  };

  #addBlocking(exchange: Exchange & { kind: 'blocking' }): void {
    const { asked, why } = exchange;
    const targetMs = (this.#previous?.targetSeconds ?? 1) * 1000;
    const waitedMs = exchange.firstByteAtMs - exchange.sentAtMs;
    const what = `segment ${asked.segment}, part ${asked.part}`;
    if (exchange.status !== 200 || waitedMs > 3 * targetMs) {
      const rule = why === 'stale' ? 'blocking-stale' : 'blocking-deadline';
      this.#report(rule, `${what}: ${exchange.status} after ${waitedMs} ms`);
      if (exchange.status !== 200) return;
    }
    this.#addPlaylist(exchange, 'cache-blocking');
    const isThere = this.#previous !== undefined && contains(this.#previous, asked);
    if (!isThere) {
      this.#report(why === 'past-end' ? 'blocking-part-past-end' : 'blocking-contains', what);
    }
  }

  #addPlaylist(answer: Answer, cacheRule: 'cache-playlist' | 'cache-blocking'): void {
    if (answer.status !== 200) return;
    const playlist = parseMediaPlaylist(answer.body.toString(), this.#report);
    checkPlaylist(playlist, this.#options.otherRenditions, this.#report);
    this.#checkPlaylistHeaders(answer, playlist.targetSeconds, cacheRule);
    if (this.#previous !== undefined) this.#checkReload(this.#previous, playlist, answer.firstByteAtMs);
    this.#remember(playlist);
    if (this.#previous === undefined || isLater(playlist, this.#previous))
      this.#previousAtMs = answer.firstByteAtMs;
    this.#previous = playlist;
  }

  #checkPlaylistHeaders(
    answer: Answer,
    targetSeconds: number,
    cacheRule: 'cache-playlist' | 'cache-blocking',
  ): void {
    const { headers } = answer;
    if (headers['content-type'] !== 'application/vnd.apple.mpegurl')
      this.#report('content-type', `${headers['content-type']}`);
    if (headers['access-control-allow-origin'] !== '*') this.#report('cors', 'playlist');
    if (headers['content-encoding'] !== 'gzip' || !/accept-encoding/i.test(headers.vary ?? '')) {
      this.#report('gzip', `${headers['content-encoding']}, Vary: ${headers.vary}`);
    }
    const expected =
      cacheRule === 'cache-playlist' ? Math.max(1, Math.floor(targetSeconds / 2)) : 6 * targetSeconds;
    if (maxAgeSeconds(answer) !== expected)
      this.#report(cacheRule, `max-age ${maxAgeSeconds(answer)}, expected ${expected}`);
  }

  #checkReload(before: ParsedPlaylist, now: ParsedPlaylist, nowMs: number): void {
    if (now.targetSeconds !== before.targetSeconds) {
      this.#report('target-duration-constant', `${before.targetSeconds} -> ${now.targetSeconds}`);
    }
    if (now.partTargetSeconds !== before.partTargetSeconds) {
      this.#report('part-target-constant', `${before.partTargetSeconds} -> ${now.partTargetSeconds}`);
    }
    const control = (playlist: ParsedPlaylist) => JSON.stringify([...playlist.serverControl].sort());
    if (control(now) !== control(before))
      this.#report('server-control-constant', `${control(before)} -> ${control(now)}`);
    mergedDateRanges([...before.dateRanges, ...now.dateRanges], this.#report);
    if (now.mediaSequence < before.mediaSequence) {
      this.#report('media-sequence', `${before.mediaSequence} -> ${now.mediaSequence}`);
    }
    for (const segment of now.segments) {
      const old = before.segments.find((one) => one.number === segment.number);
      if (old === undefined) continue;
      if (old.discontinuitySequence !== segment.discontinuitySequence) {
        this.#report(
          'discontinuity-sequence',
          `segment ${segment.number}: ${old.discontinuitySequence} -> ${segment.discontinuitySequence}`,
        );
      }
      if (!isSameSegment(old, segment)) this.#report('segment-constant', `segment ${segment.number}`);
    }
    if (isLater(before, now)) {
      this.#report('end-advances', JSON.stringify([endOf(before), endOf(now)]));
      return;
    }
    if (!isLater(now, before)) return;
    const [hint] = before.hintUris;
    const next = nextPosition(before);
    const newPart = now.segments.find((one) => one.number === next.segment)?.parts[next.part];
    if (newPart?.uri !== hint) this.#report('hint-kept', `${hint}, listed: ${newPart?.uri}`);

    const tolerance = this.#options.cadenceToleranceMs;
    const partTargetMs = (now.partTargetSeconds ?? 0) * 1000;
    if (nowMs - this.#previousAtMs > partTargetMs + tolerance)
      this.#report('part-cadence', `${nowMs - this.#previousAtMs} ms`);
    const finishedCount = (playlist: ParsedPlaylist) =>
      endOf(playlist).segment - Number(endOf(playlist).isOpen);
    if (finishedCount(now) > finishedCount(before)) {
      const sinceMs = this.#lastSegmentAtMs === undefined ? 0 : nowMs - this.#lastSegmentAtMs;
      if (sinceMs > 1500 * now.targetSeconds + tolerance) this.#report('segment-cadence', `${sinceMs} ms`);
      this.#lastSegmentAtMs = nowMs;
    }
  }

  #remember(playlist: ParsedPlaylist): void {
    for (const segment of playlist.segments) {
      for (const tag of segment.parts) {
        const known = this.#parts.get(tag.uri);
        this.#parts.set(tag.uri, { segment: segment.number, tag, bytes: known?.bytes });
        if (known?.tag === undefined && known?.bytes !== undefined)
          this.#checkPartContent(tag, segment, known.bytes);
      }
    }
    for (const [uri, { segment }] of this.#parts) {
      if (segment < playlist.mediaSequence) this.#parts.delete(uri);
    }
  }

  #addDelta(exchange: Exchange & { kind: 'delta' }): void {
    const silent: Report = () => undefined;
    const full = parseMediaPlaylist(exchange.full, silent);
    const delta = parseMediaPlaylist(exchange.body.toString(), this.#report);
    checkPlaylist(delta, this.#options.otherRenditions, this.#report);
    const boundarySeconds = Number(delta.serverControl.get('CAN-SKIP-UNTIL') ?? 0);
    let toEndSeconds = 0;
    let skippable = 0;
    for (const segment of full.segments.toReversed()) {
      if (segment.uri === undefined) continue;
      if (toEndSeconds >= boundarySeconds - DURATION_TOLERANCE_S) skippable++;
      toEndSeconds += segment.durationSeconds;
    }
    // A whole playlist is as good where discontinuities would confuse players.
    const mayBeWhole = delta.skippedCount === 0 && full.segments.some((segment) => segment.isDiscontinuous);
    if (delta.skippedCount !== skippable && !mayBeWhole) {
      this.#report('delta-skips', `${delta.skippedCount}, beyond the boundary lie ${skippable}`);
    }
    const withoutVersion = (
      { version, skippedCount, segments, serverControl, saysRemovedDateRanges, ...rest }: ParsedPlaylist,
      skip: number,
    ) => JSON.stringify([rest, [...serverControl], segments.slice(skip)]);
    if (withoutVersion(delta, 0) !== withoutVersion(full, delta.skippedCount)) {
      this.#report('delta-merges', `of segment ${full.mediaSequence} on`);
    }
    // It is asked for with _HLS_skip=YES, which never leaves them out.
    const dateRanges = (playlist: ParsedPlaylist) =>
      JSON.stringify(playlist.dateRanges.map((range) => [...range]));
    if (dateRanges(delta) !== dateRanges(full)) this.#report('delta-dateranges', dateRanges(delta));
  }

  #checkMedia(answer: Answer): void {
    if (answer.status !== 200) return;
    const { headers } = answer;
    if (headers['content-type'] !== 'video/mp4') this.#report('content-type', `${headers['content-type']}`);
    if (headers['access-control-allow-origin'] !== '*') this.#report('cors', 'media');
    if (Number(headers['content-length']) !== answer.body.length) {
      this.#report('content-length', `${headers['content-length']}, came ${answer.body.length}`);
    }
    const targetSeconds = this.#previous?.targetSeconds ?? 1;
    if (!((maxAgeSeconds(answer) ?? 0) >= 6 * targetSeconds))
      this.#report('cache-media', `max-age ${maxAgeSeconds(answer)}`);
  }

  #addPart(kind: 'hint' | 'part', uri: string, answer: Answer): void {
    if (answer.status !== 200) {
      this.#report('hint-served', `${uri}: ${answer.status}`);
      return;
    }
    this.#checkMedia(answer);
    const takenMs = answer.endedAtMs - answer.firstByteAtMs;
    if (kind === 'hint' && takenMs > this.#options.fullSpeedMs)
      this.#report('hint-full-speed', `${uri}: ${takenMs} ms`);
    const known = this.#parts.get(uri);
    if (known?.bytes !== undefined) {
      if (!known.bytes.equals(answer.body)) this.#report('part-bytes-constant', uri);
      return;
    }
    const segment = this.#previous?.segments.find((one) => one.parts.some((part) => part.uri === uri));
    this.#parts.set(uri, {
      segment: segment?.number ?? Number.POSITIVE_INFINITY,
      tag: known?.tag,
      bytes: answer.body,
    });
    if (known?.tag !== undefined && segment !== undefined)
      this.#checkPartContent(known.tag, segment, answer.body);
  }

  #checkPartContent(tag: ParsedPart, segment: ParsedSegment, bytes: Buffer): void {
    const tracks = this.#init.get(segment.mapUri ?? '');
    if (tracks === undefined) return;
    const fragment = readFragment(bytes, tracks);
    const video = fragment.find((track) => track.isVideo);
    const startsWithKeyFrame = video === undefined ? true : video.startsWithKeyFrame;
    if (tag.isIndependent && !startsWithKeyFrame) this.#report('part-independent', tag.uri);
    if (!tag.isIndependent && startsWithKeyFrame) this.#report('part-marked', tag.uri);
    if (video !== undefined && Math.abs(video.durationSeconds - tag.durationSeconds) > 0.002) {
      this.#report(
        'part-duration',
        `${tag.uri}: ${video.durationSeconds} s of video, DURATION=${tag.durationSeconds}`,
      );
    }
    const last = this.#lastDecodeEnd;
    const isNext = last !== undefined && segment.number - last.segment <= 1 && !segment.isDiscontinuous;
    const ends = new Map<number, number>(isNext ? last.ends : []);
    for (const track of fragment) {
      const end = ends.get(track.id);
      if (end !== undefined && end !== track.startTicks) {
        this.#report(
          'part-times-contiguous',
          `${tag.uri}, track ${track.id}: ${track.startTicks} after ${end}`,
        );
      }
      ends.set(track.id, track.endTicks);
    }
    this.#lastDecodeEnd = { segment: segment.number, ends };
  }

  #addSegment(uri: string, answer: Answer): void {
    const segment = this.#previous?.segments.find((one) => one.uri === uri);
    const bytes = segment?.parts.map((part) => this.#parts.get(part.uri)?.bytes) ?? [];
    if (answer.status !== 200 || bytes.length === 0) return;
    const known = bytes.filter((part) => part !== undefined);
    if (known.length < bytes.length) return; // it began before the checker did
    if (!Buffer.concat(known).equals(answer.body)) this.#report('parts-concatenate', uri);
  }
}

function isLater(a: ParsedPlaylist, b: ParsedPlaylist): boolean {
  const [x, y] = [endOf(a), endOf(b)];
  if (x.segment !== y.segment) return x.segment > y.segment;
  return x.parts !== y.parts ? x.parts > y.parts : y.isOpen && !x.isOpen;
}

function maxAgeSeconds(answer: Answer): number | undefined {
  const match = /max-age=(\d+)/.exec(answer.headers['cache-control'] ?? '');
  return match === null ? undefined : Number(match[1]);
}

export interface TrackInfo {
  readonly id: number;
  readonly isVideo: boolean;
  readonly timescaleHz: number;
  /** Four characters: the type of its sample entry. */
  readonly sampleEntry: string;
}

/** Boxes of ISO/IEC 14496-12 directly inside a stretch of bytes. */
function* boxes(bytes: Buffer): Generator<{ type: string; body: Buffer }> {
  for (let at = 0; at + 8 <= bytes.length; ) {
    const size = bytes.readUInt32BE(at);
    if (size < 8) return;
    yield { type: bytes.toString('latin1', at + 4, at + 8), body: bytes.subarray(at + 8, at + size) };
    at += size;
  }
}

function inside(bytes: Buffer, ...path: string[]): Buffer[] {
  const [type, ...rest] = path;
  if (type === undefined) return [bytes];
  return [...boxes(bytes)].filter((box) => box.type === type).flatMap((box) => inside(box.body, ...rest));
}

export function readTracks(init: Buffer): TrackInfo[] {
  return inside(init, 'moov', 'trak').map((trak) => {
    const [tkhd = Buffer.alloc(0)] = inside(trak, 'tkhd');
    const [mdhd = Buffer.alloc(0)] = inside(trak, 'mdia', 'mdhd');
    const [hdlr = Buffer.alloc(0)] = inside(trak, 'mdia', 'hdlr');
    const [stsd = Buffer.alloc(0)] = inside(trak, 'mdia', 'minf', 'stbl', 'stsd');
    return {
      id: tkhd.readUInt32BE(tkhd[0] === 1 ? 20 : 12),
      isVideo: hdlr.toString('latin1', 8, 12) === 'vide',
      timescaleHz: mdhd.readUInt32BE(mdhd[0] === 1 ? 20 : 12),
      sampleEntry: stsd.toString('latin1', 12, 16),
    };
  });
}

export interface FragmentTrack {
  readonly id: number;
  readonly isVideo: boolean;
  readonly startTicks: number;
  readonly endTicks: number;
  /** The earliest presentation time. */
  readonly presentedTicks: number;
  readonly durationSeconds: number;
  readonly startsWithKeyFrame: boolean;
}

/** The tracks of a part: times and sample flags of its `moof` boxes (ISO/IEC 14496-12, 8.8). */
export function readFragment(part: Buffer, tracks: readonly TrackInfo[]): FragmentTrack[] {
  const moofStart = part.indexOf('moof') - 4;
  return inside(part, 'moof', 'traf').flatMap((traf) => {
    const [tfhd = Buffer.alloc(8)] = inside(traf, 'tfhd');
    const [tfdt = Buffer.alloc(12)] = inside(traf, 'tfdt');
    const id = tfhd.readUInt32BE(4);
    const track = tracks.find((one) => one.id === id);
    if (track === undefined) return [];
    const tfhdFlags = tfhd.readUInt32BE(0) & 0xff_ffff;
    let at = 8 + (tfhdFlags & 1 ? 8 : 0) + (tfhdFlags & 2 ? 4 : 0);
    const defaultDuration = tfhdFlags & 8 ? tfhd.readUInt32BE(at) : 0;
    at += (tfhdFlags & 8 ? 4 : 0) + (tfhdFlags & 0x10 ? 4 : 0);
    const defaultFlags = tfhdFlags & 0x20 ? tfhd.readUInt32BE(at) : 0;
    const startTicks = tfdt[0] === 1 ? Number(tfdt.readBigUInt64BE(4)) : tfdt.readUInt32BE(4);
    let durationTicks = 0;
    let presentedTicks = Number.POSITIVE_INFINITY;
    let firstFlags: number | undefined;
    let firstOffset = 0;
    for (const trun of inside(traf, 'trun')) {
      const flags = trun.readUInt32BE(0) & 0xff_ffff;
      const count = trun.readUInt32BE(4);
      let cursor = 8;
      const take = () => {
        cursor += 4;
        return trun.readUInt32BE(cursor - 4);
      };
      const offset = flags & 1 ? take() : 0;
      if (firstOffset === 0) firstOffset = moofStart + offset;
      const firstSampleFlags = flags & 4 ? take() : undefined;
      for (let sample = 0; sample < count; sample++) {
        const decodedTicks = startTicks + durationTicks;
        durationTicks += flags & 0x100 ? take() : defaultDuration;
        if (flags & 0x200) take();
        const own = flags & 0x400 ? take() : defaultFlags;
        firstFlags ??= firstSampleFlags ?? own;
        // Signed from version 1 on; no stream reorders for half of the unsigned range.
        const offsetTicks = flags & 0x800 ? take() | 0 : 0;
        presentedTicks = Math.min(presentedTicks, decodedTicks + offsetTicks);
      }
    }
    const isSync = firstFlags !== undefined && (firstFlags & 0x1_0000) === 0;
    return {
      id,
      isVideo: track.isVideo,
      startTicks,
      endTicks: startTicks + durationTicks,
      presentedTicks,
      durationSeconds: durationTicks / track.timescaleHz,
      startsWithKeyFrame:
        isSync && (!/^avc[13]$/.test(track.sampleEntry) || startsWithIdr(part, firstOffset)),
    };
  });
}

/** The first slice of an access unit of H.264 with 4-byte lengths is an IDR slice: NAL unit type 5. */
function startsWithIdr(bytes: Buffer, offset: number): boolean {
  for (let at = offset; at + 5 <= bytes.length; at += 4 + bytes.readUInt32BE(at)) {
    const type = (bytes[at + 4] ?? 0) & 0x1f;
    if (type === 5) return true;
    if (type === 1) return false;
  }
  return false;
}

/** Sends one request and takes the times of its answer. */
export function exchange(url: URL): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sentAtMs = performance.now();
    const request = httpRequest(url, { headers: { 'Accept-Encoding': 'gzip' } }, (response) => {
      const firstByteAtMs = performance.now();
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const raw = Buffer.concat(chunks);
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: response.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw,
          sentAtMs,
          firstByteAtMs,
          endedAtMs: performance.now(),
        });
      });
    });
    request.setTimeout(30_000, () => request.destroy(new Error(`no answer from ${url}`)));
    request.on('error', reject);
    request.end();
  });
}

export interface WatchResult {
  readonly violations: readonly Violation[];
  readonly partsSeen: number;
  readonly segmentsSeen: number;
}

/** How often the requests beside a player's own are made, in parts. */
const PROBE_EVERY_PARTS = 7;
const MAX_REMEMBERED_ADDRESSES = 1000;

/**
 * Follows one rendition as a low-latency player does, and asks in between what no player would.
 * @param mediaPlaylistUrl of the rendition
 */
export async function watchRendition(
  mediaPlaylistUrl: string,
  options: Partial<CheckerOptions> & { durationMs: number },
): Promise<WatchResult> {
  const checker = new LlHlsChecker(options);
  const at = (relative: string, query: Record<string, string | number> = {}) => {
    const url = new URL(relative, mediaPlaylistUrl);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
    return url;
  };
  const self = mediaPlaylistUrl;
  const blocking = (asked: Position, more: Record<string, string> = {}) =>
    exchange(
      at(self, {
        _HLS_msn: asked.segment,
        ...(asked.part === undefined ? {} : { _HLS_part: asked.part }),
        ...more,
      }),
    );
  const fetched = new Set<string>();
  const inits = new Set<string>();
  /** What is gone from the playlist, and when to ask for it. */
  const gone: { what: 'part' | 'segment'; uri: string; askAtMs: number }[] = [];
  let partsSeen = 0;
  let segmentsSeen = 0;
  /** Delta updates that were asked for, and those that could be compared. */
  const turns = { all: 0, compared: 0 };

  checker.add({ kind: 'plain', ...(await exchange(at(self))) });
  const fetchMedia = async (before: ParsedPlaylist | undefined, now: ParsedPlaylist) => {
    for (const { mapUri } of now.segments) {
      if (mapUri === undefined || inits.has(mapUri)) continue;
      inits.add(mapUri);
      checker.add({ kind: 'init', uri: mapUri, ...(await exchange(at(mapUri))) });
    }
    for (const segment of now.segments.slice(-3)) {
      for (const { uri } of segment.parts) {
        if (fetched.has(uri)) continue;
        fetched.add(uri);
        partsSeen++;
        checker.add({ kind: 'part', uri, ...(await exchange(at(uri))) });
      }
      if (segment.uri === undefined || fetched.has(segment.uri) || before === undefined) continue;
      fetched.add(segment.uri);
      segmentsSeen++;
      checker.add({ kind: 'segment', uri: segment.uri, ...(await exchange(at(segment.uri))) });
    }
    const listed = new Set(now.segments.flatMap((one) => [one.uri, ...one.parts.map((part) => part.uri)]));
    for (const segment of before?.segments ?? []) {
      for (const { uri } of segment.parts.slice(0, 1)) {
        const askAtMs = performance.now() + 2900 * now.targetSeconds;
        if (!listed.has(uri)) gone.push({ what: 'part', uri, askAtMs });
      }
      if (segment.uri !== undefined && !listed.has(segment.uri)) {
        const askAtMs = performance.now() + 900 * now.targetSeconds;
        gone.push({ what: 'segment', uri: segment.uri, askAtMs });
      }
    }
    for (const uri of fetched) {
      if (fetched.size <= MAX_REMEMBERED_ADDRESSES) break;
      if (!listed.has(uri)) fetched.delete(uri);
    }
    while ((gone[0]?.askAtMs ?? Number.POSITIVE_INFINITY) <= performance.now()) {
      const one = gone.shift();
      if (one === undefined) break;
      checker.add({ kind: 'removed', what: one.what, uri: one.uri, ...(await exchange(at(one.uri))) });
    }
  };

  const endAtMs = performance.now() + options.durationMs;
  let before: ParsedPlaylist | undefined;
  for (let turn = 0; performance.now() < endAtMs; turn++) {
    const now = checker.playlist;
    if (now === undefined) throw new Error(`no playlist at ${mediaPlaylistUrl}`);
    await fetchMedia(before, now);
    before = now;
    const asked = nextPosition(now);
    const [hint = ''] = now.hintUris;
    fetched.add(hint);
    partsSeen++;
    // All three wait for the same part.
    const [full, delta, hinted] = await Promise.all([
      blocking(asked),
      blocking(asked, { _HLS_skip: 'YES' }),
      exchange(at(hint)),
    ]);
    checker.add({ kind: 'blocking', asked, ...full });
    // A request that a busy machine held up is answered later, and shows a later moment.
    const isSameMoment = momentOf(full) === momentOf(delta);
    if (isSameMoment) checker.add({ kind: 'delta', full: full.body.toString(), ...delta });
    turns.all++;
    if (isSameMoment) turns.compared++;
    checker.add({ kind: 'hint', uri: hint, ...hinted });
    checker.add({ kind: 'part', uri: hint, ...(await exchange(at(hint))) });
    if (turn % PROBE_EVERY_PARTS === 0) await probe(checker, at, self, blocking);
  }
  const violations = [...checker.violations];
  if (turns.compared < turns.all / 4) {
    const detail = `only ${turns.compared} of ${turns.all} end where the whole playlist does`;
    violations.push({ rule: 'delta-merges', detail });
  }
  return { violations, partsSeen, segmentsSeen };
}

/** What a playlist ends with. */
function momentOf(answer: Answer): string {
  const { segment, part } = nextPosition(parseMediaPlaylist(answer.body.toString(), () => undefined));
  return `${segment}.${part}`;
}

/** The requests that no player makes. */
async function probe(
  checker: LlHlsChecker,
  at: (relative: string, query?: Record<string, string | number>) => URL,
  self: string,
  blocking: (asked: Position) => Promise<Answer>,
): Promise<void> {
  checker.add({ kind: 'plain', ...(await exchange(at(self))) });
  const playlist = checker.playlist;
  if (playlist === undefined) return;
  const { segment: next } = nextPosition(playlist);
  const finished = endOf(playlist).isOpen ? next - 1 : endOf(playlist).segment;
  const limit = Math.ceil(3 / (playlist.partTargetSeconds ?? 1));
  const stale = { segment: playlist.mediaSequence, part: 0 };
  checker.add({ kind: 'blocking', asked: stale, why: 'stale', ...(await blocking(stale)) });
  const answer = await blocking({ segment: finished, part: 500 });
  checker.add({ kind: 'blocking', asked: { segment: finished + 1, part: 0 }, why: 'past-end', ...answer });
  const refuse = async (
    rule: 'refuses-part-alone' | 'refuses-far-segment' | 'refuses-far-part' | 'refuses-unknown',
    url: URL,
  ) => checker.add({ kind: 'refusal', rule, ...(await exchange(url)) });
  await refuse('refuses-part-alone', at(self, { _HLS_part: 0 }));
  // One more than the limit: the playlist may have grown by one since.
  await refuse('refuses-far-segment', at(self, { _HLS_msn: finished + 4 }));
  await refuse('refuses-far-part', at(self, { _HLS_msn: finished + 2, _HLS_part: 3 * limit }));
  const [hint = ''] = playlist.hintUris;
  await refuse('refuses-unknown', at(hint.replace(/\d+(?=\.\d+\.)/, '999999999')));
}
