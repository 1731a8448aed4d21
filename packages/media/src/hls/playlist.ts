/**
 * HLS playlists: built as data, then serialised.
 *
 * Source: RFC 8216 section 4.3 (the tags) and draft-pantos-hls-rfc8216bis (multivariant, low latency).
 */
import type { AudioTrack, Cue, GuideProgramme, VideoTrack } from '../access-unit.ts';
import { parseFragment } from '../fmp4/fragment.ts';
import { VIDEO_TIMESCALE_HZ } from '../time.ts';
import type { LiveWindow, OpenSegment } from './live-window.ts';
import type { InitSegment, Part, Segment } from './segmenter.ts';

/** What players expect of playlists with fragmented MP4; EXT-X-MAP needs 6 (RFC 8216, 7). */
const VERSION = 7;
/** EXT-X-GAP needs it (rfc8216bis, section 8). */
const GAP_VERSION = 8;
/** EXT-X-SKIP needs it (the same section). The other low-latency tags are for those who know them. */
const DELTA_UPDATE_VERSION = 9;

/** How far from the end a plain player starts, in target durations: the least allowed (rfc8216bis, 4.4.3.8). */
const HOLD_BACK_TARGET_DURATIONS = 3;
/** The same in part targets for a low-latency player: the least that Apple's authoring rules allow (14.3). */
const PART_HOLD_BACK_PART_TARGETS = 3;
/** Segments further from the end may be left out of a delta update: the least allowed (4.4.3.8). */
const CAN_SKIP_UNTIL_TARGET_DURATIONS = 6;
/** Parts of segments further from the end are not listed (4.4.4.9, 6.2.2). */
const PARTS_TARGET_DURATIONS = 3;

export interface MediaPlaylist {
  /** EXT-X-PLAYLIST-TYPE; undefined where old segments go as new ones come. */
  readonly type: 'EVENT' | 'VOD' | undefined;
  /** Whole seconds (EXT-X-TARGETDURATION). */
  readonly targetDurationSeconds: number;
  readonly mediaSequenceNumber: number;
  readonly discontinuitySequence: number;
  /** A decoder can start at every listed segment. */
  readonly isIndependentSegments: boolean;
  /** Where playback is to start, from the start of the playlist (EXT-X-START); the player decides when undefined. */
  readonly startOffsetSeconds: number | undefined;
  /** The programmes that listed segments belong to (EXT-X-DATERANGE), each once, in their order. */
  readonly programmes: readonly GuideProgramme[];
  readonly segments: readonly MediaPlaylistSegment[];
  /** A player that has it may ask for what is new alone. */
  readonly offersDeltaUpdates: boolean;
  /** Undefined in a plain playlist. */
  readonly lowLatency: LowLatencyTags | undefined;
  /** Nothing will be added (EXT-X-ENDLIST). */
  readonly isEnded: boolean;
}

/** What applies to a segment already while it is being made. */
export interface OpenMediaPlaylistSegment {
  readonly initUri: string;
  /** A discontinuity lies between the segment before it and this one. */
  readonly isDiscontinuous: boolean;
  readonly programDateTimeUnixMs: number;
  /** Empty for segments further from the end than three target durations, and in a plain playlist. */
  readonly parts: readonly MediaPlaylistPart[];
}

export interface MediaPlaylistSegment extends OpenMediaPlaylistSegment {
  readonly uri: string;
  /** Ticks of 1/90000 s. */
  readonly durationTicks: number;
  /** It is missing (EXT-X-GAP). */
  readonly isGap: boolean;
}

export interface MediaPlaylistPart {
  readonly uri: string;
  /** Ticks of 1/90000 s. */
  readonly durationTicks: number;
  /** A decoder can start at it. */
  readonly isIndependent: boolean;
}

export interface LowLatencyTags {
  readonly partTargetMs: number;
  readonly openSegment: OpenMediaPlaylistSegment | undefined;
  /** The part that will be made next. */
  readonly preloadHintUri: string;
  /** Of the other renditions. */
  readonly renditionReports: readonly RenditionReport[];
}

export interface RenditionReport {
  readonly uri: string;
  /** Of the newest segment or part that the rendition's playlist lists. */
  readonly lastMediaSequenceNumber: number;
  readonly lastPartIndex: number;
}

/** Addresses relative to the media playlist's. */
export interface MediaNames {
  segment(mediaSequenceNumber: number): string;
  part(mediaSequenceNumber: number, index: number): string;
  init(id: string): string;
}

/**
 * The media playlist of a window that is playable and goes on.
 *
 * The first segment never carries a discontinuity: the tag goes with the segment before it, and
 * the discontinuity sequence of the playlist rises by one instead (RFC 8216, 6.2.2).
 *
 * @param lowLatency undefined makes a plain playlist. `partTargetMs` is the segmenter's;
 * `otherRenditions` are reported, each with the address of its playlist relative to this one, without a query
 */
export function mediaPlaylist(
  window: LiveWindow,
  names: MediaNames,
  lowLatency?: {
    partTargetMs: number;
    otherRenditions: readonly { uri: string; window: LiveWindow }[];
  },
): MediaPlaylist {
  const { segments } = window;
  const open = lowLatency === undefined ? undefined : window.openSegment;
  const targetDurationSeconds = Math.ceil(window.targetDurationMs / 1000);

  const partsTicks = PARTS_TARGET_DURATIONS * targetDurationSeconds * VIDEO_TIMESCALE_HZ;
  /** From the end of the segment at hand to the end of the playlist; the segments are visited from the newest on. */
  let ticksToEnd = open?.parts.reduce((sum, part) => sum + part.durationTicks, 0) ?? 0;
  const listed = segments.toReversed().map((segment, fromEnd): MediaPlaylistSegment => {
    const hasParts = lowLatency !== undefined && ticksToEnd < partsTicks;
    ticksToEnd += segment.durationTicks;
    return {
      ...segmentTags(segment, segments.at(-2 - fromEnd), names),
      parts: hasParts ? listParts(segment.parts, names) : [],
      uri: names.segment(segment.cue.mediaSequenceNumber),
      durationTicks: segment.durationTicks,
      isGap: false,
    };
  });

  return {
    type: undefined,
    targetDurationSeconds,
    mediaSequenceNumber: window.firstMediaSequenceNumber,
    discontinuitySequence: window.discontinuitySequence,
    isIndependentSegments: [...segments, ...(open === undefined ? [] : [open])].every(
      ({ cue, parts }) => cue.isIndependent && parts[0]?.isIndependent === true,
    ),
    startOffsetSeconds: undefined,
    programmes: programmesOf([...segments, ...(open === undefined ? [] : [open])].map(({ cue }) => cue)),
    segments: listed.reverse(),
    offersDeltaUpdates: lowLatency !== undefined,
    lowLatency: lowLatency && {
      partTargetMs: lowLatency.partTargetMs,
      openSegment: open && {
        ...segmentTags(open, segments.at(-1), names),
        parts: listParts(open.parts, names),
      },
      preloadHintUri: names.part(...nextPart(window)),
      renditionReports: lowLatency.otherRenditions.map(({ uri, window: other }) => ({
        uri,
        ...lastPart(other),
      })),
    },
    isEnded: false,
  };
}

/**
 * The tags of a date range may never change (rfc8216bis, 4.4.5.1). So a programme whose end an edit has brought
 * forward is another one, from the first segment on that knows of it.
 */
function programmesOf(cues: readonly Cue[]): GuideProgramme[] {
  const programmes = new Map<string, GuideProgramme>();
  for (const { programme } of cues)
    if (programme !== undefined) programmes.set(dateRangeId(programme), programme);
  return [...programmes.values()];
}

function dateRangeId({ title, startUnixMs, endUnixMs }: GuideProgramme): string {
  return `${startUnixMs}-${endUnixMs} ${title}`;
}

function segmentTags(
  { cue, init }: OpenSegment,
  previous: Segment | undefined,
  names: MediaNames,
): Omit<OpenMediaPlaylistSegment, 'parts'> {
  return {
    initUri: names.init(init.id),
    isDiscontinuous:
      previous !== undefined && cue.discontinuitySequence !== previous.cue.discontinuitySequence,
    programDateTimeUnixMs: cue.programDateTimeUnixMs,
  };
}

function listParts(parts: readonly Part[], names: MediaNames): MediaPlaylistPart[] {
  return parts.map(({ mediaSequenceNumber, index, durationTicks, isIndependent }) => ({
    uri: names.part(mediaSequenceNumber, index),
    durationTicks,
    isIndependent,
  }));
}

/** Number and index of the part that comes next: a segment whose parts are all made is finished at once. */
function nextPart(window: LiveWindow): [mediaSequenceNumber: number, index: number] {
  const { openSegment } = window;
  if (openSegment !== undefined) return [openSegment.cue.mediaSequenceNumber, openSegment.parts.length];
  return [window.firstMediaSequenceNumber + window.segments.length, 0];
}

function lastPart(window: LiveWindow): Omit<RenditionReport, 'uri'> {
  const newest = window.openSegment ?? window.segments.at(-1);
  return {
    lastMediaSequenceNumber: newest?.cue.mediaSequenceNumber ?? 0,
    lastPartIndex: (newest?.parts.length ?? 1) - 1,
  };
}

/**
 * How many segments a delta update leaves out; 0 where there is nothing to leave out.
 *
 * A playlist with a discontinuity is given whole: hls.js up to 1.6.13 loses count of discontinuities in
 * delta updates (https://github.com/video-dev/hls.js/issues/6949, 7282, 7554).
 */
export function skippableSegmentCount(playlist: MediaPlaylist): number {
  const { segments, lowLatency } = playlist;
  if (!playlist.offersDeltaUpdates) return 0;
  const isOpenDiscontinuous = lowLatency?.openSegment?.isDiscontinuous === true;
  if (isOpenDiscontinuous || segments.some((segment) => segment.isDiscontinuous)) return 0;
  const boundaryTicks = CAN_SKIP_UNTIL_TARGET_DURATIONS * playlist.targetDurationSeconds * VIDEO_TIMESCALE_HZ;
  let ticksToEnd = 0; // of the last finished segment (rfc8216bis, 6.2.5.1)
  let count = segments.length;
  for (const segment of segments.toReversed()) {
    if (ticksToEnd >= boundaryTicks) break;
    ticksToEnd += segment.durationTicks;
    count--;
  }
  return count;
}

/**
 * Writes a media playlist.
 * @param skippedSegments more than 0 makes a delta update without the oldest so many
 */
export function serialiseMediaPlaylist(playlist: MediaPlaylist, skippedSegments = 0): string {
  const { lowLatency, targetDurationSeconds } = playlist;
  const hasGap = playlist.segments.some(({ isGap }) => isGap);
  const lines = [
    '#EXTM3U',
    `#EXT-X-VERSION:${skippedSegments > 0 ? DELTA_UPDATE_VERSION : hasGap ? GAP_VERSION : VERSION}`,
    `#EXT-X-TARGETDURATION:${targetDurationSeconds}`,
  ];
  if (playlist.type !== undefined) lines.push(`#EXT-X-PLAYLIST-TYPE:${playlist.type}`);
  const partTargetSeconds = lowLatency && lowLatency.partTargetMs / 1000;
  if (playlist.offersDeltaUpdates) {
    const control = [
      `CAN-SKIP-UNTIL=${(CAN_SKIP_UNTIL_TARGET_DURATIONS * targetDurationSeconds).toFixed(1)}`,
      `HOLD-BACK=${(HOLD_BACK_TARGET_DURATIONS * targetDurationSeconds).toFixed(1)}`,
    ];
    if (partTargetSeconds !== undefined) {
      control.unshift('CAN-BLOCK-RELOAD=YES');
      control.push(`PART-HOLD-BACK=${(PART_HOLD_BACK_PART_TARGETS * partTargetSeconds).toFixed(3)}`);
    }
    lines.push(`#EXT-X-SERVER-CONTROL:${control.join(',')}`);
  }
  if (partTargetSeconds !== undefined) {
    lines.push(`#EXT-X-PART-INF:PART-TARGET=${partTargetSeconds.toFixed(3)}`);
  }
  lines.push(
    `#EXT-X-MEDIA-SEQUENCE:${playlist.mediaSequenceNumber}`,
    `#EXT-X-DISCONTINUITY-SEQUENCE:${playlist.discontinuitySequence}`,
  );
  if (playlist.isIndependentSegments) lines.push('#EXT-X-INDEPENDENT-SEGMENTS');
  if (playlist.startOffsetSeconds !== undefined) {
    lines.push(`#EXT-X-START:TIME-OFFSET=${playlist.startOffsetSeconds.toFixed(3)},PRECISE=YES`);
  }
  // After MEDIA-SEQUENCE, or hls.js numbers the segments wrongly (https://github.com/video-dev/hls.js/issues/7905).
  if (skippedSegments > 0) lines.push(`#EXT-X-SKIP:SKIPPED-SEGMENTS=${skippedSegments}`);

  // Delta updates have them all: a player keeps the skipped ones only where CAN-SKIP-DATERANGES is said (6.2.5.1).
  for (const programme of playlist.programmes) {
    const { title, startUnixMs, endUnixMs } = programme;
    lines.push(
      `#EXT-X-DATERANGE:ID="${quotable(dateRangeId(programme))}",CLASS="starling.programme"` +
        `,START-DATE="${new Date(startUnixMs).toISOString()}",DURATION=${((endUnixMs - startUnixMs) / 1000).toFixed(3)}` +
        `,X-TITLE="${quotable(title)}"`,
    );
  }

  let initUri: string | undefined;
  // What applies to a segment stands before its first part (rfc8216bis, 4.4.4.9).
  const pushTagsAndParts = (segment: OpenMediaPlaylistSegment) => {
    if (segment.isDiscontinuous) lines.push('#EXT-X-DISCONTINUITY');
    if (segment.initUri !== initUri) lines.push(`#EXT-X-MAP:URI="${segment.initUri}"`);
    initUri = segment.initUri;
    lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(segment.programDateTimeUnixMs).toISOString()}`);
    for (const part of segment.parts) {
      const independent = part.isIndependent ? ',INDEPENDENT=YES' : '';
      lines.push(`#EXT-X-PART:DURATION=${seconds(part.durationTicks)},URI="${part.uri}"${independent}`);
    }
  };
  for (const segment of playlist.segments.slice(skippedSegments)) {
    pushTagsAndParts(segment);
    if (segment.isGap) lines.push('#EXT-X-GAP');
    lines.push(`#EXTINF:${seconds(segment.durationTicks)},`, segment.uri);
  }
  if (lowLatency !== undefined) {
    if (lowLatency.openSegment !== undefined) pushTagsAndParts(lowLatency.openSegment);
    lines.push(`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="${lowLatency.preloadHintUri}"`);
    for (const report of lowLatency.renditionReports) {
      lines.push(
        `#EXT-X-RENDITION-REPORT:URI="${report.uri}",LAST-MSN=${report.lastMediaSequenceNumber},LAST-PART=${report.lastPartIndex}`,
      );
    }
  }
  if (playlist.isEnded) lines.push('#EXT-X-ENDLIST');
  return `${lines.join('\n')}\n`;
}

/** As a quoted string may hold it (4.2): without quotes and control characters, in the normalisation form of 4.1. */
function quotable(text: string): string {
  return text
    .replace(/\p{Cc}|\p{Cs}/gu, ' ')
    .replaceAll('"', "'")
    .normalize('NFC');
}

function seconds(ticks: number): string {
  return (ticks / VIDEO_TIMESCALE_HZ).toFixed(6);
}

export interface MultivariantPlaylist {
  /** For players that choose among none: the first. */
  readonly variants: readonly Variant[];
  /** Sound in playlists of its own. */
  readonly audioRenditions: readonly AudioRendition[];
}

export interface Variant {
  readonly uri: string;
  /** Peak segment bit rate, bits per second; with the largest of its audio renditions. */
  readonly bandwidthBps: number;
  readonly averageBandwidthBps: number;
  /** RFC 6381, one for each format in the variant and its audio renditions. */
  readonly codecs: readonly string[];
  readonly resolution: { readonly widthPx: number; readonly heightPx: number } | undefined;
  /** Frames per second. */
  readonly frameRate: number | undefined;
  readonly audioGroupId: string | undefined;
}

/** EXT-X-MEDIA of TYPE=AUDIO. */
export interface AudioRendition {
  readonly groupId: string;
  /** For people, in the language itself; of its own in the group. */
  readonly name: string;
  /** RFC 5646. */
  readonly language: string | undefined;
  readonly isDefault: boolean;
  /** A player may choose it for its language. */
  readonly isAutoselect: boolean;
  readonly channelCount: number;
  readonly uri: string;
}

/** One rendition as its listed segments show it. */
interface Measured {
  readonly name: string;
  readonly peakBps: number;
  readonly averageBps: number;
  readonly codecs: readonly string[];
  readonly video: VideoTrack | undefined;
  readonly audio: AudioTrack | undefined;
  readonly segments: readonly DescribedSegment[];
}

/** What a multivariant playlist needs to know of a segment. */
interface DescribedSegment extends Pick<Segment, 'durationTicks' | 'sizeBytes'> {
  readonly init: Pick<InitSegment, 'tracks'>;
  /** To count the pictures where the track does not say how many there are; empty where they are not at hand. */
  readonly parts: readonly Pick<Part, 'bytes'>[];
}

/** A rendition with its segments, oldest first. */
export interface DescribedRendition {
  readonly name: string;
  readonly window: { readonly segments: readonly DescribedSegment[] };
}

/**
 * The multivariant playlist of renditions that are all playable, as their newest segments show them.
 *
 * A rendition with both kinds of tracks, or the only one, is a variant by itself. Otherwise audio
 * renditions form groups, one for each codec, and each video rendition is a variant with each group; without
 * video each group is a variant. Variants and the members of a group are in the order of their
 * tracks, so that track 0, the default, comes first.
 *
 * Bit rates are those of the listed segments, rounded up to two significant digits: near enough
 * to the truth for a player (at most 10 % above), coarse enough that two frontends whose windows
 * differ by a segment mostly agree.
 *
 * @param mediaPlaylistUri of a rendition, by its name
 */
export function multivariantPlaylist(
  renditions: readonly DescribedRendition[],
  mediaPlaylistUri: (rendition: string) => string,
): MultivariantPlaylist {
  const all = renditions.map(measure);
  const [only] = all;
  if (only !== undefined && all.length === 1) {
    const variant = variantOf(only, undefined, mediaPlaylistUri);
    return { variants: [variant], audioRenditions: [] };
  }
  const videos = all.filter(({ video }) => video !== undefined);
  const groups = new Map<string, Measured[]>();
  for (const one of all) {
    if (one.audio === undefined) continue;
    groups.set(one.audio.codec, [...(groups.get(one.audio.codec) ?? []), one]);
  }
  const audioRenditions = [...groups].flatMap(([groupId, members]) =>
    audioGroup(groupId, members, mediaPlaylistUri),
  );
  if (groups.size === 0) {
    return { variants: videos.map((one) => variantOf(one, undefined, mediaPlaylistUri)), audioRenditions };
  }
  const variants = [...groups].flatMap(([groupId, members]) => {
    const withPicture = videos.length > 0 ? videos : members.slice(0, 1);
    return withPicture.map((one) => variantOf(one, { groupId, members }, mediaPlaylistUri));
  });
  return { variants, audioRenditions };
}

function measure({ name, window }: DescribedRendition): Measured {
  const { segments } = window;
  const newest = segments.at(-1);
  if (newest === undefined) throw new Error(`a multivariant playlist with the empty rendition ${name}`);
  const { tracks } = newest.init;
  const sizeBytes = segments.reduce((sum, segment) => sum + segment.sizeBytes, 0);
  const durationTicks = segments.reduce((sum, segment) => sum + segment.durationTicks, 0);
  return {
    name,
    peakBps: segments.reduce((peak, one) => Math.max(peak, bitrateBps(one.sizeBytes, one.durationTicks)), 0),
    averageBps: bitrateBps(sizeBytes, durationTicks),
    codecs: tracks.map((track) => track.codecString),
    video: tracks.find((track) => track.kind === 'video'),
    audio: tracks.find((track) => track.kind === 'audio'),
    segments,
  };
}

function variantOf(
  one: Measured,
  group: { readonly groupId: string; readonly members: readonly Measured[] } | undefined,
  mediaPlaylistUri: (rendition: string) => string,
): Variant {
  const { video, segments } = one;
  const members = group?.members ?? [];
  // Without video the variant is a member of its group itself.
  const own = members.includes(one) ? { peakBps: 0, averageBps: 0 } : one;
  return {
    uri: mediaPlaylistUri(one.name),
    bandwidthBps: roundUp(own.peakBps + Math.max(0, ...members.map(({ peakBps }) => peakBps))),
    averageBandwidthBps: roundUp(
      own.averageBps + Math.max(0, ...members.map(({ averageBps }) => averageBps)),
    ),
    codecs: [...new Set([one, ...members].flatMap(({ codecs }) => codecs))],
    resolution: video && { widthPx: video.widthPx, heightPx: video.heightPx },
    frameRate: video && frameRate(video, segments),
    audioGroupId: group?.groupId,
  };
}

/**
 * The members of a group. The first is the default. Names differ, and so do the languages of those that a
 * player may choose by itself (RFC 8216, 4.3.4.1.1).
 */
function audioGroup(
  groupId: string,
  members: readonly Measured[],
  mediaPlaylistUri: (rendition: string) => string,
): AudioRendition[] {
  const names = new Set<string>();
  const languages = new Set<string | undefined>([undefined]);
  return members.flatMap(({ name: rendition, audio }, i) => {
    if (audio === undefined) return [];
    const { language, trackId, channelCount } = audio;
    const plainName = language === undefined ? `Audio ${trackId}` : languageName(language);
    const name = names.has(plainName) ? `${plainName} (${trackId})` : plainName;
    names.add(name);
    const isDefault = i === 0;
    const isAutoselect = isDefault || !languages.has(language);
    languages.add(language);
    const uri = mediaPlaylistUri(rendition);
    return [{ groupId, name, language, isDefault, isAutoselect, channelCount, uri }];
  });
}

/** What a language calls itself; its tag where that is not known. */
function languageName(language: string): string {
  try {
    const name = new Intl.DisplayNames([language], { type: 'language' }).of(language);
    return name === undefined || /["\p{Cc}]/u.test(name) ? language : name;
  } catch {
    return language; // has the form of a tag, but is none
  }
}

function bitrateBps(sizeBytes: number, durationTicks: number): number {
  return (sizeBytes * 8 * VIDEO_TIMESCALE_HZ) / durationTicks;
}

/** To the next whole number of two significant digits. */
function roundUp(bps: number): number {
  const digits = String(Math.ceil(bps)).length;
  const step = 10 ** Math.max(0, digits - 2);
  return Math.ceil(bps / step) * step;
}

/** Frame rates that cameras and encoders are set to. */
const COMMON_FRAME_RATES = [
  24_000 / 1001,
  24,
  25,
  30_000 / 1001,
  30,
  48,
  50,
  60_000 / 1001,
  60,
  100,
  120_000 / 1001,
  120,
];
/** How far from a common rate a measured one is taken for it: encoders stamp whole milliseconds. */
const FRAME_RATE_TOLERANCE = 0.005;

/** Frames per second as the track says, else as the segments show. */
function frameRate(video: VideoTrack, segments: readonly DescribedSegment[]): number | undefined {
  if (video.frameDurationTicks !== undefined) return VIDEO_TIMESCALE_HZ / video.frameDurationTicks;
  let frameCount = 0;
  let durationTicks = 0;
  for (const segment of segments) {
    if (segment.parts.length > 0) durationTicks += segment.durationTicks;
    for (const part of segment.parts) {
      for (const unit of parseFragment(part.bytes, segment.init.tracks)) {
        if (unit.kind === 'video') frameCount++;
      }
    }
  }
  if (frameCount === 0) return undefined;
  const measured = (frameCount * VIDEO_TIMESCALE_HZ) / durationTicks;
  const distance = (rate: number) => Math.abs(rate - measured);
  const nearest = COMMON_FRAME_RATES.reduce((best, rate) => (distance(rate) < distance(best) ? rate : best));
  return distance(nearest) <= measured * FRAME_RATE_TOLERANCE ? nearest : measured;
}

/** Writes a multivariant playlist. */
export function serialiseMultivariantPlaylist(playlist: MultivariantPlaylist): string {
  const lines = ['#EXTM3U', `#EXT-X-VERSION:${VERSION}`];
  for (const audio of playlist.audioRenditions) {
    const attributes = ['TYPE=AUDIO', `GROUP-ID="${audio.groupId}"`, `NAME="${audio.name}"`];
    if (audio.language !== undefined) attributes.push(`LANGUAGE="${audio.language}"`);
    attributes.push(
      `DEFAULT=${audio.isDefault ? 'YES' : 'NO'}`,
      `AUTOSELECT=${audio.isAutoselect ? 'YES' : 'NO'}`,
      `CHANNELS="${audio.channelCount}"`,
      `URI="${audio.uri}"`,
    );
    lines.push(`#EXT-X-MEDIA:${attributes.join(',')}`);
  }
  for (const variant of playlist.variants) {
    const attributes = [
      `BANDWIDTH=${variant.bandwidthBps}`,
      `AVERAGE-BANDWIDTH=${variant.averageBandwidthBps}`,
      `CODECS="${variant.codecs.join(',')}"`,
    ];
    if (variant.resolution !== undefined) {
      attributes.push(`RESOLUTION=${variant.resolution.widthPx}x${variant.resolution.heightPx}`);
    }
    if (variant.frameRate !== undefined) attributes.push(`FRAME-RATE=${variant.frameRate.toFixed(3)}`);
    if (variant.audioGroupId !== undefined) attributes.push(`AUDIO="${variant.audioGroupId}"`);
    lines.push(`#EXT-X-STREAM-INF:${attributes.join(',')}`, variant.uri);
  }
  return `${lines.join('\n')}\n`;
}
