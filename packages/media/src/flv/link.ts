/**
 * The data messages between our nodes that no other RTMP peer sends: timeline, track and cue.
 * Their wire form is described in docs/formats/cue.md.
 */
import { type Cue, type GuideProgramme, MAX_TRACK_ID } from '../access-unit.ts';
import { equalBytes } from '../bytes.ts';
import { MediaError } from '../error.ts';
import { type Amf0Object, type Amf0Value, decodeAmf0, encodeAmf0, isAmf0Object } from '../rtmp/amf0.ts';
import { VIDEO_TIMESCALE_HZ } from '../time.ts';

export type LinkMessage =
  | { readonly type: 'timeline'; readonly epochUnixMs: number }
  /** Precedes a sequence header and says what that header cannot. */
  | {
      readonly type: 'track';
      readonly kind: 'video';
      readonly trackId: number;
      readonly frameDurationTicks: number | undefined;
      readonly widthPx: number;
      readonly heightPx: number;
    }
  | {
      readonly type: 'track';
      readonly kind: 'audio';
      readonly trackId: number;
      readonly language: string | undefined;
    }
  | { readonly type: 'cue'; readonly cue: Cue };

const VERSION = 1;

/** 99 years after the epoch. Up to here every time is a whole tick on tracks of every sample rate. */
const MAX_START_TICKS = 2 ** 48;
/** One segment a second for 34,000 years; what is computed from a number stays below 2^53. */
const MAX_SEQUENCE = 2 ** 40;
/** The last millisecond of the year 9999: later dates have no ISO 8601 form that players read. */
const MAX_UNIX_MS = 253_402_300_799_999;
/** The most of any codec here: AV1 (AV1 5.5.1). */
const MAX_PICTURE_SIZE_PX = 65_536;
/** 10 s: a slide show. */
const MAX_FRAME_DURATION_TICKS = 10 * VIDEO_TIMESCALE_HZ;
/** Subtags of letters and digits (RFC 5646, 2.1). */
const LANGUAGE_TAG = /^[a-z]{2,8}(?:-[a-z0-9]{1,8}){0,7}$/i;
/** Several times what a schedule may say. */
const MAX_TITLE_CHARACTERS = 1000;
const NAMES = { timeline: 'onStarlingTimeline', track: 'onStarlingTrack', cue: 'onStarlingCue' } as const;

/** Each name as it opens a payload: an AMF0 string. */
const PREFIXES = {
  timeline: encodeAmf0([NAMES.timeline]),
  track: encodeAmf0([NAMES.track]),
  cue: encodeAmf0([NAMES.cue]),
};

/** The payload of a data message that carries a timeline, a track or a cue. */
export function encodeLinkMessage(message: LinkMessage): Uint8Array {
  switch (message.type) {
    case 'timeline':
      return encodeAmf0([NAMES.timeline, { version: VERSION, epochUnixMs: message.epochUnixMs }]);
    case 'track':
      return encodeAmf0([NAMES.track, { version: VERSION, ...trackFields(message) }]);
    case 'cue':
      return encodeAmf0([NAMES.cue, { version: VERSION, ...cueFields(message.cue) }]);
  }
}

function cueFields({ programme, ...cue }: Cue): Amf0Object {
  return programme === undefined ? cue : { ...cue, programme: { ...programme } };
}

function trackFields(message: Extract<LinkMessage, { type: 'track' }>): Amf0Object {
  const { kind, trackId } = message;
  if (kind === 'audio') return { kind, trackId, language: message.language ?? null };
  const { frameDurationTicks, widthPx, heightPx } = message;
  return { kind, trackId, frameDurationTicks: frameDurationTicks ?? null, widthPx, heightPx };
}

/**
 * Reads the payload of a data message.
 * @returns undefined where it is not one of ours (onMetaData and whatever encoders think up): such a
 *   payload is not even decoded, so nothing in it can do harm
 * @throws MediaError LINK_BAD_MESSAGE
 */
export function decodeLinkMessage(payload: Uint8Array): LinkMessage | undefined {
  if (startsWith(payload, PREFIXES.timeline)) {
    const fields = Fields.of(NAMES.timeline, payload);
    return { type: 'timeline', epochUnixMs: fields.date('epochUnixMs') };
  }
  if (startsWith(payload, PREFIXES.track)) {
    const fields = Fields.of(NAMES.track, payload);
    const trackId = fields.count('trackId', MAX_TRACK_ID);
    if (fields.kind('kind') === 'audio') {
      return { type: 'track', kind: 'audio', trackId, language: fields.language('language') };
    }
    return {
      type: 'track',
      kind: 'video',
      trackId,
      frameDurationTicks: fields.duration('frameDurationTicks'),
      widthPx: fields.count('widthPx', MAX_PICTURE_SIZE_PX),
      heightPx: fields.count('heightPx', MAX_PICTURE_SIZE_PX),
    };
  }
  if (startsWith(payload, PREFIXES.cue)) {
    const fields = Fields.of(NAMES.cue, payload);
    return {
      type: 'cue',
      cue: {
        mediaSequenceNumber: fields.count('mediaSequenceNumber', MAX_SEQUENCE),
        discontinuitySequence: fields.count('discontinuitySequence', MAX_SEQUENCE),
        startTicks: fields.count('startTicks', MAX_START_TICKS),
        programDateTimeUnixMs: fields.date('programDateTimeUnixMs'),
        programmeId: fields.string('programmeId'),
        ...fields.programme('programme'),
        targetDurationMs: fields.count('targetDurationMs', Number.MAX_SAFE_INTEGER),
        isIndependent: fields.boolean('isIndependent'),
      },
    };
  }
  return undefined;
}

function startsWith(payload: Uint8Array, prefix: Uint8Array): boolean {
  return payload.length >= prefix.length && equalBytes(payload.subarray(0, prefix.length), prefix);
}

/** The fields of one message, each checked as it is taken. Fields that are not asked for are ignored. */
class Fields {
  readonly #name: string;
  readonly #object: Amf0Object;

  private constructor(name: string, object: Amf0Object) {
    this.#name = name;
    this.#object = object;
  }

  static of(name: string, payload: Uint8Array): Fields {
    const fields = new Fields(name, Fields.#decode(name, payload));
    const version = fields.number('version');
    if (version !== VERSION) fields.#fail('version', version, `${VERSION}`);
    return fields;
  }

  static #decode(name: string, payload: Uint8Array): Amf0Object {
    let values: readonly Amf0Value[];
    try {
      values = decodeAmf0(payload);
    } catch (cause) {
      throw new MediaError('LINK_BAD_MESSAGE', `${name} is not valid AMF0`, { cause });
    }
    const object = values[1];
    if (!isAmf0Object(object)) throw new MediaError('LINK_BAD_MESSAGE', `${name} has no object`);
    return object;
  }

  number(field: string): number {
    const value = this.#object[field];
    return typeof value === 'number' && Number.isFinite(value) ? value : this.#fail(field, value, 'a number');
  }

  /** A time in milliseconds since 1970, fractions allowed. */
  date(field: string): number {
    const value = this.number(field);
    return value >= 0 && value <= MAX_UNIX_MS
      ? value
      : this.#fail(field, value, 'milliseconds from 1970 to 9999');
  }

  /** A whole number from 0 to `max`. */
  count(field: string, max: number): number {
    const value = this.number(field);
    return Number.isSafeInteger(value) && value >= 0 && value <= max
      ? value
      : this.#fail(field, value, `a whole number from 0 to ${max}`);
  }

  duration(field: string): number | undefined {
    if (this.#object[field] === null) return undefined;
    const value = this.count(field, MAX_FRAME_DURATION_TICKS);
    return value > 0 ? value : this.#fail(field, value, 'null or a whole number from 1');
  }

  language(field: string): string | undefined {
    if (this.#object[field] === null) return undefined;
    const value = this.string(field);
    return LANGUAGE_TAG.test(value) ? value : this.#fail(field, value, 'null or a language tag of RFC 5646');
  }

  string(field: string): string {
    const value = this.#object[field];
    return typeof value === 'string' ? value : this.#fail(field, value, 'a string');
  }

  boolean(field: string): boolean {
    const value = this.#object[field];
    return typeof value === 'boolean' ? value : this.#fail(field, value, 'a boolean');
  }

  /** Publishers of before the field was thought of do not send it. */
  programme(field: string): { programme?: GuideProgramme } {
    const value = this.#object[field];
    if (value === undefined || value === null) return {};
    if (!isAmf0Object(value)) return this.#fail(field, value, 'null or an object');
    const inside = new Fields(`${this.#name}.${field}`, value);
    const title = inside.string('title');
    if (title.length > MAX_TITLE_CHARACTERS)
      inside.#fail('title', title, `at most ${MAX_TITLE_CHARACTERS} characters`);
    const startUnixMs = inside.count('startUnixMs', MAX_UNIX_MS);
    const endUnixMs = inside.count('endUnixMs', MAX_UNIX_MS);
    if (endUnixMs <= startUnixMs) inside.#fail('endUnixMs', endUnixMs, 'after startUnixMs');
    return { programme: { title, startUnixMs, endUnixMs } };
  }

  kind(field: string): 'video' | 'audio' {
    const value = this.#object[field];
    return value === 'video' || value === 'audio' ? value : this.#fail(field, value, '"video" or "audio"');
  }

  #fail(field: string, actual: unknown, expected: string): never {
    const shown = typeof actual === 'object' && actual !== null ? 'an object' : String(actual);
    throw new MediaError(
      'LINK_BAD_MESSAGE',
      `${this.#name}.${field} is ${shown.slice(0, 80)}, expected ${expected}`,
    );
  }
}
