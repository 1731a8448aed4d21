/** How files become assets: the settings of the network's library, and the folders that it watches. */
import { type Static, Type } from 'typebox';
import { Language } from './track-set.ts';

/** The qualities that an asset can have, by the height of the picture; all are 16:9. */
export const RungName = Type.Union([
  Type.Literal('2160p'),
  Type.Literal('1440p'),
  Type.Literal('1080p'),
  Type.Literal('720p'),
  Type.Literal('480p'),
  Type.Literal('360p'),
  Type.Literal('240p'),
]);
export type RungName = Static<typeof RungName>;

/** Concern imports from now on; what is in the store stays as it is. */
export const LibrarySettings = Type.Object(
  {
    /** The qualities that every asset gets. */
    ladder: Type.Array(RungName, { minItems: 1, maxItems: 5, uniqueItems: true }),
    /**
     * True: an asset gets every rung of the ladder, so that items of a channel follow one another without a
     * discontinuity. False: none above the smallest that holds the source's picture.
     */
    scalesUp: Type.Boolean(),
    /** The sound of the first that a source has becomes its default track. */
    languages: Type.Array(Language, { maxItems: 8, uniqueItems: true }),
    /** All assets together; null for as much as the disk holds. */
    maxStoreBytes: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
    /** Longer sources are refused. */
    maxSourceHours: Type.Number({ exclusiveMinimum: 0, maximum: 48 }),
    /** Whether URLs may lead into private networks, to this machine and the like. */
    allowsPrivateUrls: Type.Boolean(),
  },
  { additionalProperties: false },
);
export type LibrarySettings = Static<typeof LibrarySettings>;

/** What is left out stays as it is. */
export const LibrarySettingsChange = Type.Partial(LibrarySettings, { additionalProperties: false });
export type LibrarySettingsChange = Static<typeof LibrarySettingsChange>;

export const defaultLibrarySettings: LibrarySettings = {
  ladder: ['1080p', '720p', '480p'],
  scalesUp: true,
  languages: [],
  maxStoreBytes: null,
  maxSourceHours: 8,
  allowsPrivateUrls: false,
};

/** What is taken for media in a folder, by its name; anything else is left alone. */
const MEDIA_FILE_NAME =
  /^[^.].*\.(3gp|aac|ac3|aiff?|avi|divx|dv|eac3|flac|flv|m2ts|m2v|m4a|m4v|mka|mkv|mov|mp3|mp4|mpe?g|mts|mxf|nut|og[agv]|opus|rm|ts|vob|wav|webm|wm[av])$/i;

export function isMediaFileName(name: string): boolean {
  return MEDIA_FILE_NAME.test(name);
}

/** A folder on the machine of the backend; what is put into it is imported. */
export const WatchedFolder = Type.Object({
  id: Type.String(),
  path: Type.String(),
  isRecursive: Type.Boolean(),
  createdAt: Type.String({ format: 'date-time' }),
});
export type WatchedFolder = Static<typeof WatchedFolder>;

export const NewWatchedFolder = Type.Object(
  {
    path: Type.String({ minLength: 1, maxLength: 4096, examples: ['/home/me/films'] }),
    isRecursive: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type NewWatchedFolder = Static<typeof NewWatchedFolder>;

/** Files of a watched folder that are complete. Those that were reported before are not imported again. */
export const FolderReport = Type.Object({
  files: Type.Array(
    Type.Object({
      path: Type.String({ minLength: 1, maxLength: 4096 }),
      /** Changes when the file is replaced. */
      version: Type.String({ minLength: 1, maxLength: 64 }),
    }),
    { maxItems: 500 },
  ),
});
export type FolderReport = Static<typeof FolderReport>;
