/** The codecs that only Enhanced RTMP brings: their configurations and units, as a stranger may send them. */
import { type Track, timescaleHz } from '@starling/media/access-unit';
import { ByteWriter, concatBytes } from '@starling/media/bytes';
import { samplesInUnit } from '@starling/media/codec/samples';
import { MediaError } from '@starling/media/error';
import { FlvDemuxer } from '@starling/media/flv/demux';
import { type FlvMessage, FOUR_CC, hasCompositionTime } from '@starling/media/flv/tag';
import { initSegment, parseInitSegment } from '@starling/media/fmp4/init-segment';
import type { Random } from './random.ts';
import { check, type Target } from './target.ts';

const hex = (digits: string) => Uint8Array.from(Buffer.from(digits, 'hex'));

interface Seed {
  readonly kind: 'video' | 'audio';
  readonly codec: Track['codec'];
  readonly config: Uint8Array;
  readonly unit: Uint8Array;
}

/** A configuration and the beginning of a unit, from x265, SVT-AV1, libvpx, libopus and FFmpeg's encoders. */
const SEEDS: readonly [Seed, ...Seed[]] = [
  {
    kind: 'video',
    codec: 'hevc',
    config: hex(
      '0121600000009000000000007bf000fcfdf8f800000f03a00001001840010c01ffff21600000030090000003000003007b959409a10001002b42010121600000030090000003000003007ba003c0801107cb965654a4c2f0168080000003008000000c84a2000100064401c073c189',
    ),
    unit: hex('0000000426010a'),
  },
  {
    kind: 'video',
    codec: 'av1',
    config: hex('81080c000a0b00000042abbfc3700be001'),
    unit: hex('12000a0b00000042abbfc3700be0013204'),
  },
  { kind: 'video', codec: 'vp9', config: hex('001f820202020000'), unit: hex('82498342004ff002cf6') },
  {
    kind: 'audio',
    codec: 'opus',
    config: hex('4f707573486561640102380180bb0000000000'),
    unit: hex('fc0102'),
  },
  {
    kind: 'audio',
    codec: 'flac',
    config: hex(`664c61438000002203e803e80000000007e50ac440f000000000${'00'.repeat(16)}`),
    unit: hex('fff8c9080000'),
  },
  { kind: 'audio', codec: 'ac3', config: hex('103de0'), unit: hex('0b7700001c40') },
  { kind: 'audio', codec: 'eac3', config: hex('0600600400'), unit: hex('0b7702ff3f85') },
  { kind: 'audio', codec: 'mp3', config: hex(''), unit: hex('fffb90c4') },
];

/** Byte 0: which codec; byte 1: the length of the configuration; then the configuration and a unit. */
function inputOf(index: number, config: Uint8Array, unit: Uint8Array): Uint8Array {
  return concatBytes([Uint8Array.of(index, config.length), config, unit]);
}

/** Source: Enhanced RTMP v2, ExVideoTagHeader and ExAudioTagHeader. */
function message(seed: Seed, packetType: 0 | 1, body: Uint8Array): FlvMessage {
  const hasTime = packetType === 1 && hasCompositionTime(seed.codec);
  const writer = new ByteWriter(8 + body.length).u8(0x90 | packetType).ascii(FOUR_CC[seed.codec]);
  if (hasTime) writer.u24(0);
  return { kind: seed.kind, timestampMs: 40 * packetType, payload: writer.bytes(body).finish() };
}

export const enhancedCodecs: Target = {
  name: 'enhanced-codecs',
  maxInputBytes: 600,
  generate(random: Random) {
    const index = random.below(SEEDS.length);
    const { config, unit } = SEEDS[index] ?? SEEDS[0];
    const other = random.pick(SEEDS);
    return inputOf(index, random.oneIn(8) ? other.config : config, random.oneIn(8) ? other.unit : unit);
  },
  run(input) {
    const seed = SEEDS[(input[0] ?? 0) % SEEDS.length] ?? SEEDS[0];
    const configEnd = 2 + (input[1] ?? 0);
    const demuxer = new FlvDemuxer();
    const names: string[] = [seed.codec];
    const messages = [
      message(seed, 0, input.subarray(2, configEnd)),
      message(seed, 1, input.subarray(configEnd)),
      message(seed, 1, input.subarray(configEnd)),
    ];
    for (const one of messages) {
      try {
        for (const event of demuxer.push(one)) {
          names.push(event.type);
          if (event.type === 'track') {
            const { track } = event;
            check(/^[\w.-]+$/.test(track.codecString), `codec string ${track.codecString}`);
            check(Number.isInteger(timescaleHz(track)) && timescaleHz(track) > 0, 'a timescale is positive');
            if (track.kind === 'video') {
              const isSane = [track.widthPx, track.heightPx].every((px) => Number.isInteger(px) && px > 0);
              check(isSane, `${track.widthPx}x${track.heightPx} is a size`);
            }
            const [read] = parseInitSegment(initSegment([track]));
            check(read?.codec === track.codec, 'an init segment that is written is read');
          } else if (event.type === 'unit') {
            check(event.unit.data.length > 0, 'no unit is empty');
          }
          const track = event.type === 'track' ? event.track : undefined;
          if (track?.kind === 'audio') {
            const samples = samplesInUnit(track, input.subarray(configEnd));
            check(Number.isSafeInteger(samples) && samples >= 0 && samples < 2 ** 20, `${samples} samples`);
          }
        }
      } catch (error) {
        if (!(error instanceof MediaError)) throw error;
        names.push(error.code);
      }
    }
    return names.join(' ');
  },
};
