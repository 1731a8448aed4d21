/**
 * The tracks that assets have and that channels send. An asset has as many qualities and languages as
 * its source and the settings at its import gave it; a channel sends the same tracks whatever it plays.
 */
import { type Static, Type } from 'typebox';

/** RFC 5646, for instance `de` or `pt-BR`. */
export const Language = Type.String({
  pattern: '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$',
  maxLength: 35,
  examples: ['en'],
});

export const AssetVideoTrack = Type.Object({
  widthPx: Type.Integer({ minimum: 1 }),
  heightPx: Type.Integer({ minimum: 1 }),
  /** Mean over the asset. */
  bitrateBps: Type.Integer({ minimum: 0 }),
});
export type AssetVideoTrack = Static<typeof AssetVideoTrack>;

export const AssetAudioTrack = Type.Object({
  /** Null where the source does not say. */
  language: Type.Union([Language, Type.Null()]),
  /** Integrated loudness of the source in stereo (EBU R 128); null when silent or not measured. */
  loudnessLufs: Type.Union([Type.Number(), Type.Null()]),
  /** What was added to it at the import. */
  gainDb: Type.Number(),
});
export type AssetAudioTrack = Static<typeof AssetAudioTrack>;

/** An asset's tracks by track id: the tallest picture first; the sound of the preferred language first. */
export interface AssetTracks {
  readonly videoTracks: readonly Pick<AssetVideoTrack, 'heightPx'>[];
  readonly audioTracks: readonly Pick<AssetAudioTrack, 'language'>[];
}

/** The tracks of a channel, by track id. */
export const TrackSet = Type.Object({
  /** The tallest first. */
  heightsPx: Type.Array(Type.Integer({ minimum: 1 }), { minItems: 1 }),
  /** Null: the one sound of assets that do not tell their language. */
  languages: Type.Array(Type.Union([Language, Type.Null()]), { minItems: 1 }),
});
export type TrackSet = Static<typeof TrackSet>;

/**
 * The set that has every quality and every language of the assets. Sound of unknown language adds none
 * where there is another: it stands in for languages that its asset lacks.
 * @param assets in the order in which languages are to be numbered
 * @param before the set to be extended: its languages keep their numbers
 */
export function trackSetOf(assets: Iterable<AssetTracks>, before?: TrackSet): TrackSet {
  const heightsPx = new Set(before?.heightsPx);
  const languages = new Set(before?.languages.filter((language) => language !== null));
  for (const { videoTracks, audioTracks } of assets) {
    for (const { heightPx } of videoTracks) heightsPx.add(heightPx);
    for (const { language } of audioTracks) if (language !== null) languages.add(language);
  }
  return {
    heightsPx: [...heightsPx].sort((a, b) => b - a),
    languages: languages.size > 0 ? [...languages] : [null],
  };
}

export function isSameTrackSet(a: TrackSet, b: TrackSet): boolean {
  return a.heightsPx.join() === b.heightsPx.join() && a.languages.join() === b.languages.join();
}

/**
 * What an asset plays on each track of a set: a quality that it lacks is filled with its next lower one,
 * or its lowest; a language that it lacks with its first.
 * @returns track ids of the asset, by track id of the set
 */
export function fillTrackSet(
  { heightsPx, languages }: TrackSet,
  { videoTracks, audioTracks }: AssetTracks,
): { readonly videoTrackIds: readonly number[]; readonly audioTrackIds: readonly number[] } {
  return {
    videoTrackIds: heightsPx.map((wantedPx) => {
      const trackId = videoTracks.findIndex(({ heightPx }) => heightPx <= wantedPx);
      return trackId < 0 ? videoTracks.length - 1 : trackId;
    }),
    audioTrackIds: languages.map((wanted) =>
      Math.max(
        0,
        audioTracks.findIndex(({ language }) => language === wanted),
      ),
    ),
  };
}
