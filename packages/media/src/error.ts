/**
 * The coded errors of the media package. One catalogue: `docs/errors.md` is checked against it.
 *
 * A bad peer or a bad file raises a {@link MediaError}; a broken invariant of our own is an
 * ordinary `Error`; input that is merely incomplete is a return value, not an exception.
 */
export const mediaErrorCatalogue = {
  BYTES_TRUNCATED: 'The data ends before the structure does. The sender cut it short.',
  AMF0_UNKNOWN_MARKER: 'An AMF0 value has a type marker that the specification does not define.',
  AMF0_UNSUPPORTED_TYPE:
    'An AMF0 value is of a type (reference, movie clip, record set, AMF3 object) that streaming does not use.',
  AMF0_TOO_DEEP: 'AMF0 objects are nested deeper than any real peer nests them.',
  AMF0_TOO_LONG: 'An AMF0 array or string announces more elements than the message can hold.',
  RTMP_BAD_VERSION: 'The first byte of the handshake is not RTMP version 3. Is this an RTMP client?',
  RTMP_CHUNK_SIZE: 'The peer announced a chunk size outside 1..2147483647 bytes.',
  RTMP_MESSAGE_TOO_LONG: 'A message is longer than this server accepts.',
  RTMP_TOO_MANY_CHUNK_STREAMS: 'The peer opened more chunk streams than this server accepts.',
  RTMP_CHUNK_WITHOUT_HEADER: 'A chunk refers to an earlier header on a chunk stream that has none.',
  RTMP_BAD_MESSAGE: 'An RTMP message does not have the form that its type prescribes.',
  RTMP_BAD_COMMAND: 'An RTMP command came out of order or lacks an argument.',
  FLV_BAD_HEADER: 'The data does not begin with an FLV header.',
  FLV_BAD_TAG: 'An FLV tag does not have the form that its type prescribes.',
  FLV_UNSUPPORTED_CODEC:
    'The stream uses a codec that this server does not take. Send H.264, HEVC, AV1 or VP9 video and AAC, Opus, FLAC, AC-3, E-AC-3 or MP3 audio.',
  LINK_BAD_MESSAGE: 'A timeline or cue message lacks a field or holds a value out of range.',
  AVC_BAD_CONFIG: 'The AVCDecoderConfigurationRecord or one of its parameter sets is malformed.',
  HEVC_BAD_CONFIG: 'The HEVCDecoderConfigurationRecord or its sequence parameter set is malformed.',
  AV1_BAD_CONFIG: 'The AV1CodecConfigurationRecord or its sequence header is malformed.',
  VP9_BAD_CONFIG: 'The VPCodecConfigurationRecord or the header of a key frame is malformed.',
  AAC_BAD_CONFIG: 'The AudioSpecificConfig is malformed or not AAC.',
  OPUS_BAD_CONFIG: 'The ID header of an Opus stream is malformed.',
  FLAC_BAD_CONFIG: 'The STREAMINFO block of a FLAC stream is malformed or missing.',
  AC3_BAD_FRAME: 'An AC-3 or E-AC-3 frame or its configuration is malformed.',
  MP3_BAD_FRAME: 'An MP3 frame header is malformed or of another layer.',
  MP4_BAD_BOX: 'An MP4 box has an impossible size or lies outside its parent.',
  MP4_MISSING_BOX: 'A required MP4 box is missing.',
  MP4_UNSUPPORTED_CODEC: 'An MP4 track uses a codec that this server does not take yet.',
  HLS_DTS_BACKWARDS: "An access unit's DTS precedes the last one's on the same track.",
  HLS_CUE_BACKWARDS: 'A cue does not come after the cue before it.',
  HLS_SEGMENT_TOO_LONG: 'A segment grew past its bound because no cue closed it.',
} as const;

export type MediaErrorCode = keyof typeof mediaErrorCatalogue;

/** An error caused by a peer or a file, with a code from {@link mediaErrorCatalogue}. */
export class MediaError extends Error {
  readonly code: MediaErrorCode;
  /** Offset in bytes of the fault in the structure being read, where there is one. */
  readonly byteOffset: number | undefined;

  /**
   * @param detail the actual and the allowed value, in plain words
   */
  constructor(code: MediaErrorCode, detail: string, options: { byteOffset?: number; cause?: unknown } = {}) {
    super(
      `${code}: ${mediaErrorCatalogue[code]} ${detail}${options.byteOffset === undefined ? '' : ` (at byte ${options.byteOffset})`}`,
      options.cause === undefined ? {} : { cause: options.cause },
    );
    this.name = 'MediaError';
    this.code = code;
    this.byteOffset = options.byteOffset;
  }
}
