/**
 * A strict checker of an HLS channel of several renditions: its multivariant playlist, and whether the
 * renditions agree. Each by itself is ll-hls-checker.ts's business. Shares no code with the server.
 *
 * {@link checkChannel} judges what was seen at one moment; {@link watchChannel} looks at a real server.
 *
 * Sources: draft-pantos-hls-rfc8216bis (the section is beside each rule) and RFC 8216.
 */
import {
  type AttributeForm,
  type CheckerOptions,
  exchange,
  type ParsedPlaylist,
  parseMediaPlaylist,
  readAttributes,
  readFragment,
  readTracks,
  watchRendition,
} from './ll-hls-checker.ts';

export const multivariantRules = {
  syntax: 'has only tags and attributes that the specification defines, well-formed (4.2, 4.4.6)',
  'stream-inf':
    'states BANDWIDTH, AVERAGE-BANDWIDTH no larger, CODECS, and of pictures RESOLUTION and FRAME-RATE (4.4.6.2)',
  'group-members':
    'has groups with a name of its own for each member, at most one default, and one choice a language (4.4.6.1.1)',
  'groups-used': 'names groups that there are, and none that nobody names (4.4.6.2.1)',
  codecs: 'states in CODECS the formats of the variant and its group, no more and no less (4.4.6.2)',
  bandwidth:
    'states in BANDWIDTH no less than the peak of the variant with the largest of its group (4.4.6.2)',
  'variants-differ': 'has no variant twice (4.4.6.2)',
  'target-duration': 'has one target duration in all renditions (6.2.4)',
  numbers:
    'gives what starts at the same time the same number in all renditions, which end within a segment of each other (6.2.4)',
  boundaries: 'starts and ends segments at the same times in all renditions (6.2.4)',
  discontinuities: 'has discontinuities at the same segments in all renditions (6.2.4)',
  dates: 'maps dates to the times of media in the same way in all renditions (6.2.4)',
  reports: 'reports of each rendition the others, at most a segment behind (4.4.5.4)',
} as const;

export type MultivariantRule = keyof typeof multivariantRules;

export interface MultivariantViolation {
  readonly rule: MultivariantRule;
  readonly detail: string;
}

/** One rendition at the moment of a look. */
export interface Sighting {
  /** As the multivariant playlist has it. */
  readonly uri: string;
  readonly playlist: ParsedPlaylist;
  /** Types of sample entries of its tracks. */
  readonly sampleEntries: readonly string[];
  /** Of listed segments, by number. */
  readonly segmentBytes: ReadonlyMap<number, number>;
  /** When the first sample of a segment is presented, by number. */
  readonly presentedSeconds: ReadonlyMap<number, number>;
}

const DECIMAL = /^\d+$/;
const QUOTED = /^"[^"\r\n]*"$/;
const YES_NO = /^(YES|NO)$/;
const MEDIA: AttributeForm = {
  must: { TYPE: /^AUDIO$/, 'GROUP-ID': QUOTED, NAME: QUOTED, URI: QUOTED },
  may: {
    LANGUAGE: QUOTED,
    DEFAULT: YES_NO,
    AUTOSELECT: YES_NO,
    CHANNELS: /^"\d+"$/,
  },
};
const STREAM_INF: AttributeForm = {
  must: { BANDWIDTH: DECIMAL },
  may: {
    'AVERAGE-BANDWIDTH': DECIMAL,
    CODECS: QUOTED,
    RESOLUTION: /^\d+x\d+$/,
    'FRAME-RATE': /^\d+\.\d{3}$/,
    AUDIO: QUOTED,
  },
};

interface Multivariant {
  readonly variants: readonly { readonly uri: string; readonly attributes: ReadonlyMap<string, string> }[];
  readonly media: readonly ReadonlyMap<string, string>[];
}

type Complain = (rule: MultivariantRule, detail: string) => void;

export function parseMultivariant(text: string, complain: Complain): Multivariant {
  const variants: { uri: string; attributes: ReadonlyMap<string, string> }[] = [];
  const media: ReadonlyMap<string, string>[] = [];
  const [first, ...lines] = text.split('\n');
  if (first !== '#EXTM3U' || lines.pop() !== '') complain('syntax', 'it has no #EXTM3U or no end of line');
  let streamInf: ReadonlyMap<string, string> | undefined;
  const bad = (detail: string) => complain('syntax', detail);
  for (const line of lines) {
    const [, tag = '', value = ''] = /^#([^:]+):?(.*)$/.exec(line) ?? [];
    if (!line.startsWith('#')) {
      if (streamInf === undefined) bad(`${line} without EXT-X-STREAM-INF`);
      else variants.push({ uri: line, attributes: streamInf });
      streamInf = undefined;
    } else if (streamInf !== undefined) bad(`${line} between EXT-X-STREAM-INF and its address`);
    else if (tag === 'EXT-X-MEDIA') media.push(readAttributes(tag, value, MEDIA, bad));
    else if (tag === 'EXT-X-STREAM-INF') streamInf = readAttributes(tag, value, STREAM_INF, bad);
    else if (tag !== 'EXT-X-VERSION' && tag !== 'EXT-X-INDEPENDENT-SEGMENTS') bad(line);
  }
  return { variants, media };
}

/** Sample entries of pictures. */
const VIDEO_ENTRIES = /^(avc[13]|hvc1|hev1|av01|vp09)$/;
/** A video picture at 25 Hz: in whole milliseconds, dates are rounded, and sound starts at whole AAC frames. */
const DATE_TOLERANCE_S = 0.03;
const BOUNDARY_TOLERANCE_S = 0.000_01;

/** Judges one look at a channel. */
export function checkChannel(text: string, sightings: readonly Sighting[]): MultivariantViolation[] {
  const violations: MultivariantViolation[] = [];
  const complain: Complain = (rule, detail) => violations.push({ rule, detail });
  const { variants, media } = parseMultivariant(text, complain);
  const groups = new Map<string, ReadonlyMap<string, string>[]>();
  for (const one of media) {
    const id = one.get('GROUP-ID') ?? '';
    groups.set(id, [...(groups.get(id) ?? []), one]);
  }
  checkGroups(groups, complain);
  const named = new Set(variants.map(({ attributes }) => attributes.get('AUDIO')));
  for (const id of groups.keys()) if (!named.has(id)) complain('groups-used', `no variant names ${id}`);

  const seen = (uri: string | undefined) => sightings.find((one) => one.uri === uri);
  const pairs = variants.map(({ uri, attributes }) => `${uri} ${attributes.get('AUDIO')}`);
  if (new Set(pairs).size !== pairs.length) complain('variants-differ', pairs.join(', '));
  for (const { uri, attributes } of variants) {
    const group = attributes.get('AUDIO');
    const members = groups.get(group ?? '') ?? [];
    if (group !== undefined && members.length === 0) complain('groups-used', `${uri}: ${group}`);
    const own = seen(uri);
    if (own === undefined) continue;
    const others = members.map((one) => seen(one.get('URI'))).filter((one) => one !== undefined);
    checkVariant(
      uri,
      attributes,
      own,
      others.filter((one) => one !== own),
      complain,
    );
  }
  checkAgreement(sightings, complain);
  return violations;
}

function checkGroups(
  groups: ReadonlyMap<string, readonly ReadonlyMap<string, string>[]>,
  complain: Complain,
): void {
  for (const [id, members] of groups) {
    const names = members.map((one) => one.get('NAME'));
    if (new Set(names).size !== names.length) complain('group-members', `${id}: ${names.join(', ')}`);
    if (members.filter((one) => one.get('DEFAULT') === 'YES').length > 1) {
      complain('group-members', `${id} has several defaults`);
    }
    const chosen = members.filter((one) => one.get('AUTOSELECT') === 'YES').map((one) => one.get('LANGUAGE'));
    if (new Set(chosen).size !== chosen.length) complain('group-members', `${id}: ${chosen.join(', ')}`);
    for (const one of members) {
      if (one.get('DEFAULT') === 'YES' && one.get('AUTOSELECT') === 'NO') {
        complain('group-members', `${id}: a default that may not be chosen`);
      }
    }
  }
}

function checkVariant(
  uri: string,
  attributes: ReadonlyMap<string, string>,
  own: Sighting,
  others: readonly Sighting[],
  complain: Complain,
): void {
  const bandwidth = Number(attributes.get('BANDWIDTH'));
  const hasPicture = own.sampleEntries.some((entry) => VIDEO_ENTRIES.test(entry));
  const needed = ['AVERAGE-BANDWIDTH', 'CODECS', ...(hasPicture ? ['RESOLUTION', 'FRAME-RATE'] : [])];
  for (const name of needed) if (!attributes.has(name)) complain('stream-inf', `${uri} without ${name}`);
  if (Number(attributes.get('AVERAGE-BANDWIDTH')) > bandwidth)
    complain('stream-inf', `${uri}: average above peak`);

  const stated = (attributes.get('CODECS') ?? '').split(',').map((codec) => codec.split('.')[0] ?? '');
  const actual = new Set([own, ...others].flatMap(({ sampleEntries }) => sampleEntries));
  if ([...actual].some((entry) => !stated.includes(entry)) || stated.some((codec) => !actual.has(codec))) {
    complain('codecs', `${uri}: ${stated.join(',')}, in fact ${[...actual].join(',')}`);
  }
  const peak = peakBps(own) + Math.max(0, ...others.map(peakBps));
  if (peak > bandwidth) complain('bandwidth', `${uri}: ${bandwidth}, in fact ${Math.ceil(peak)}`);
}

/** Without the newest segment, which may have come after the multivariant playlist. */
function peakBps({ playlist, segmentBytes }: Sighting): number {
  const rates = playlist.segments
    .filter(({ uri }) => uri !== undefined)
    .slice(0, -1)
    .map(({ number, durationSeconds }) => ((segmentBytes.get(number) ?? 0) * 8) / durationSeconds);
  return Math.max(0, ...rates);
}

/** Looks at all pairs with the first. */
function checkAgreement(sightings: readonly Sighting[], complain: Complain): void {
  const [first, ...others] = sightings;
  if (first === undefined) return;
  const newest = ({ playlist }: Sighting) => playlist.segments.at(-1)?.number ?? 0;
  for (const other of others) {
    const what = `${first.uri} and ${other.uri}`;
    if (other.playlist.targetSeconds !== first.playlist.targetSeconds) {
      complain(
        'target-duration',
        `${what}: ${first.playlist.targetSeconds}, ${other.playlist.targetSeconds}`,
      );
    }
    if (Math.abs(newest(first) - newest(other)) > 1)
      complain('numbers', `${what}: ${newest(first)}, ${newest(other)}`);
    for (const mine of first.playlist.segments) {
      const its = other.playlist.segments.find(({ number }) => number === mine.number);
      if (its === undefined) continue;
      const where = `${what}, segment ${mine.number}`;
      if (its.discontinuitySequence !== mine.discontinuitySequence) complain('discontinuities', where);
      const startsApartMs = Math.abs((its.dateUnixMs ?? 0) - (mine.dateUnixMs ?? 0));
      // Reordering of pictures; a segment is longer by far.
      if (startsApartMs > 500) complain('numbers', `${where}: ${startsApartMs} ms apart`);
      const areFinished = mine.uri !== undefined && its.uri !== undefined;
      const isLast = first.playlist.segments.some(
        (next) =>
          next.number === mine.number + 1 && next.discontinuitySequence !== mine.discontinuitySequence,
      );
      const longerSeconds = Math.abs(its.durationSeconds - mine.durationSeconds);
      // Before a discontinuity each ends with its own media.
      if (areFinished && longerSeconds > (isLast ? 0.1 : BOUNDARY_TOLERANCE_S)) {
        complain('boundaries', `${where}: ${mine.durationSeconds} s, ${its.durationSeconds} s`);
      }
      const epochs = [
        [mine, first.presentedSeconds],
        [its, other.presentedSeconds],
      ] as const;
      const [a, b] = epochs.map(
        ([{ dateUnixMs, number }, presented]) =>
          (dateUnixMs ?? Number.NaN) / 1000 - (presented.get(number) ?? Number.NaN),
      );
      if (a !== undefined && b !== undefined && Math.abs(a - b) > DATE_TOLERANCE_S) {
        complain('dates', `${where}: ${Math.round((a - b) * 1000)} ms apart`);
      }
    }
  }
  for (const { uri, playlist } of sightings) {
    const path = (address: string) => new URL(address, 'http://x/').pathname;
    const expected = sightings.filter((one) => one.uri !== uri).map((one) => path(one.uri));
    const base = new URL(uri, 'http://x/');
    const reported = playlist.reports.map((one) => new URL(one.get('URI') ?? '', base).pathname);
    if (expected.toSorted().join() !== reported.toSorted().join())
      complain('reports', `${uri}: ${reported.join(', ')}`);
    for (const one of playlist.reports) {
      const behind = (playlist.segments.at(-1)?.number ?? 0) - Number(one.get('LAST-MSN'));
      if (Math.abs(behind) > 1) complain('reports', `${uri}: ${one.get('URI')} is ${behind} segments behind`);
    }
  }
}

/** Addresses of all renditions, each once: variants first. */
export function renditionUris(text: string): string[] {
  const { variants, media } = parseMultivariant(text, () => undefined);
  return [...new Set([...variants.map(({ uri }) => uri), ...media.map((one) => one.get('URI') ?? '')])];
}

/** Of how many of the newest segments the media is read. */
const SEGMENTS_READ = 3;

async function look(multivariantUrl: string): Promise<MultivariantViolation[]> {
  const text = (await exchange(new URL(multivariantUrl))).body.toString();
  const uris = renditionUris(text);
  const playlists = await Promise.all(
    uris.map(async (uri) => {
      const { body } = await exchange(new URL(uri, multivariantUrl));
      return parseMediaPlaylist(body.toString(), () => undefined);
    }),
  );
  const sightings = await Promise.all(
    playlists.map(async (playlist, i): Promise<Sighting> => {
      const base = new URL(uris[i] ?? '', multivariantUrl);
      const finished = playlist.segments.filter(({ uri }) => uri !== undefined);
      const init = await exchange(new URL(finished.at(-1)?.mapUri ?? '', base));
      const tracks = readTracks(init.body);
      const segmentBytes = new Map<number, number>();
      const presentedSeconds = new Map<number, number>();
      for (const [at, { number, uri = '' }] of finished.entries()) {
        const { status, body } = await exchange(new URL(uri, base));
        if (status !== 200) continue; // it has left the window meanwhile
        segmentBytes.set(number, body.length);
        if (at < finished.length - SEGMENTS_READ) continue;
        const [track] = readFragment(body, tracks);
        const hz = tracks.find(({ id }) => id === track?.id)?.timescaleHz ?? Number.NaN;
        if (track !== undefined) presentedSeconds.set(number, track.presentedTicks / hz);
      }
      const sampleEntries = tracks.map(({ sampleEntry }) => sampleEntry);
      return { uri: uris[i] ?? '', playlist, sampleEntries, segmentBytes, presentedSeconds };
    }),
  );
  return checkChannel(text, sightings);
}

export interface ChannelWatchResult {
  readonly violations: readonly { readonly rule: string; readonly detail: string }[];
  /** Of each rendition. */
  readonly partsSeen: readonly number[];
}

/** A look at the whole channel in so many milliseconds. */
const LOOK_EVERY_MS = 8000;

/** Follows all renditions of a channel at the same time as low-latency players do, and looks whether they agree. */
export async function watchChannel(
  multivariantUrl: string,
  options: Partial<CheckerOptions> & { durationMs: number },
): Promise<ChannelWatchResult> {
  const text = (await exchange(new URL(multivariantUrl))).body.toString();
  const uris = renditionUris(text);
  const violations: { rule: string; detail: string }[] = [];
  const endAtMs = performance.now() + options.durationMs;
  const looks = async () => {
    do {
      violations.push(...(await look(multivariantUrl)));
      await new Promise((wake) => setTimeout(wake, Math.min(LOOK_EVERY_MS, endAtMs - performance.now())));
    } while (performance.now() < endAtMs);
  };
  const [watched] = await Promise.all([
    Promise.all(
      uris.map((uri) =>
        watchRendition(new URL(uri, multivariantUrl).href, { ...options, otherRenditions: uris.length - 1 }),
      ),
    ),
    looks(),
  ]);
  for (const [i, { violations: own }] of watched.entries()) {
    for (const { rule, detail } of own) violations.push({ rule, detail: `${uris[i]}: ${detail}` });
  }
  return { violations, partsSeen: watched.map(({ partsSeen }) => partsSeen) };
}
