/** The coded errors of the backend. One catalogue: `docs/errors.md` is checked against it. */
export const backendErrorCatalogue = {
  IMPORT_FILE_MISSING: 'The file to import does not exist on the machine of the backend.',
  IMPORT_FILE_UNREADABLE: 'The file to import cannot be read: its permissions, or it is not a regular file.',
  IMPORT_FILE_EMPTY: 'The file to import has no bytes.',
  IMPORT_FILE_CHANGED: 'The file was written to while it was imported. The import is tried again.',
  IMPORT_NOT_MEDIA: 'The file to import is not a media file that FFmpeg reads, or it is damaged.',
  IMPORT_NO_STREAMS: 'The file to import has neither picture nor sound that FFmpeg can decode.',
  IMPORT_ENCRYPTED: 'The file to import is encrypted (DRM).',
  IMPORT_FFMPEG_MISSING: 'FFmpeg is not installed, or cannot be started.',
  IMPORT_FFMPEG_FAILED: 'FFmpeg ended before the import was done.',
  IMPORT_STALLED: 'FFmpeg made no progress for a minute.',
  IMPORT_TOO_LONG: 'The source lasts longer than the settings of the library allow.',
  IMPORT_URL_FAILED: 'The URL cannot be fetched now. The import is tried again.',
  IMPORT_URL_REFUSED: 'The URL is not there, or leads where imports may not go.',
  IMPORT_URL_LIVE: 'The URL is a live stream.',
  IMPORT_STORE_FULL: 'The library has reached the size that its settings allow.',
  IMPORT_DISK_FULL: 'The disk of the media folder is full.',
  IMPORT_STORE_FAILED: 'The media folder cannot be written to.',
  IMPORT_CANCELLED: 'The import was cancelled.',
  ASSET_MISSING: 'The store does not hold the asset. Import it again.',
  ASSET_DAMAGED: 'A file of the asset is damaged. Remove the asset and import it again.',
  ASSET_UNREADABLE: 'A file of the asset cannot be read.',
} as const;

export type BackendErrorCode = keyof typeof backendErrorCatalogue;

/** An error with a code from {@link backendErrorCatalogue}. */
export class BackendError extends Error {
  readonly code: BackendErrorCode;

  /** @param sentence one sentence for the operator, with the name of the thing and the reason */
  constructor(code: BackendErrorCode, sentence: string, options: { cause?: unknown } = {}) {
    super(sentence, options);
    this.name = 'BackendError';
    this.code = code;
  }
}

/** The code of an error of the operating system, for instance `ENOENT`. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && 'syscall' in error && typeof error.code === 'string'
    ? error.code
    : undefined;
}
