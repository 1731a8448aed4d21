import { execFileSync } from 'node:child_process';
import type { StreamEvent } from '@starling/media/access-unit';
import { type Track, timescaleHz } from '@starling/media/access-unit';
import { FlvDemuxer, FlvReader } from '@starling/media/flv/demux';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { DarkWatch } from './dark-watch.ts';

/** What an encoder sends of FFmpeg's sources, in the order of its clock. */
function encoded(video: string, audio: string, options: string): StreamEvent[] {
  const args = `-v error -f lavfi -i ${video} -f lavfi -i ${audio} -c:v libx264 -pix_fmt yuv420p ${options} -c:a aac -ac 2 -f flv pipe:1`;
  const flv = execFileSync('ffmpeg', args.split(' '), { maxBuffer: 2 ** 26 });
  const demuxer = new FlvDemuxer();
  return new FlvReader().push(flv).flatMap((message) => demuxer.push(message));
}

/** Plays the events in their rhythm, on a clock that waits for the decoder. Gives when the picture was found dark. */
async function darkTimes(
  events: readonly StreamEvent[],
  afterMs: number | null = 1000,
): Promise<{ ms: number; isDark: boolean }[]> {
  const found: { ms: number; isDark: boolean }[] = [];
  let nowMs = 0;
  const watch = new DarkWatch({
    logger: pino({ level: 'silent' }),
    afterMs: () => afterMs,
    onChange: (isDark) => found.push({ ms: nowMs, isDark }),
  });
  const tracks = new Map<string, Track>();
  for (const event of events) {
    if (event.type === 'track') tracks.set(event.track.kind, event.track);
    if (event.type === 'unit') {
      const track = tracks.get(event.unit.kind);
      if (track !== undefined) nowMs = (event.unit.dtsTicks * 1000) / timescaleHz(track);
    }
    watch.push(event, nowMs);
    await watch.looked;
  }
  return found;
}

const SIZE = 's=640x360:r=25';
const TONE = 'sine=r=48000:d=8';
const SILENCE = 'anullsrc=r=48000:d=8';
/** Moves for 3 s, then is black for 3 s, then moves again. */
const GOES_BLACK = `testsrc2=${SIZE}:d=8,drawbox=c=black:t=fill:enable='between(t,3,6)'`;

describe('a picture that goes black and does not move', () => {
  it.each([
    ['x264 as it is', '-preset veryfast -g 50'],
    ['for low latency', '-preset veryfast -tune zerolatency -g 50 -sc_threshold 0'],
    [
      'with filler up to a constant rate',
      '-preset veryfast -g 50 -b:v 1M -minrate 1M -maxrate 1M -bufsize 1M -nal-hrd cbr',
    ],
    ['key frames alone', '-preset ultrafast -g 1'],
    ['key frames far apart', '-preset ultrafast -g 250 -sc_threshold 0'],
  ])('is found within a second, and when it is over: %s', async (_what, options) => {
    const found = await darkTimes(encoded(GOES_BLACK, TONE, options));
    expect(found.map(({ isDark }) => isDark)).toEqual([true, false]);
    expect(found[0]?.ms).toBeGreaterThan(3800);
    expect(found[0]?.ms).toBeLessThan(3960);
    expect(found[1]?.ms).toBeGreaterThanOrEqual(5900);
    expect(found[1]?.ms).toBeLessThan(6500);
  });

  it.each([
    ['with sound', TONE],
    ['without sound', SILENCE],
  ])('is left alone where it is a pause of 0.8 s between two scenes, %s', async (_what, sound) => {
    const pause = GOES_BLACK.replace('3,6', '3,3.79');
    expect(await darkTimes(encoded(pause, sound, '-preset veryfast -g 50'))).toEqual([]);
  });

  it.each([
    ['from a scene', `testsrc2=${SIZE}:d=8`],
    // x264 codes the fade of a plain picture as a weight, in as few bytes as a picture that stands still.
    ['from a plain picture', `color=c=0x808080:${SIZE}:d=8`],
  ])('is left alone where it is a fade out and in of a second, %s', async (_what, scene) => {
    const fade = `${scene},fade=t=out:st=3:d=0.5:enable='lt(t,3.5)',fade=t=in:st=3.5:d=0.5:enable='gte(t,3.5)'`;
    expect(await darkTimes(encoded(fade, TONE, '-preset medium -g 50'))).toEqual([]);
  });

  it('is found soon after a slow fade', async () => {
    const fade = `testsrc2=${SIZE}:d=8,fade=t=out:st=1:d=3`;
    const [found] = await darkTimes(encoded(fade, TONE, '-preset medium -g 50'));
    expect(found?.isDark).toBe(true);
    // Its last pictures are black enough already.
    expect(found?.ms).toBeGreaterThan(4300);
    expect(found?.ms).toBeLessThan(5000);
  });

  it('is replaced as late as the operator wishes, or never', async () => {
    const options = '-preset veryfast -g 50';
    const black = encoded(GOES_BLACK, TONE, options);
    const [found] = await darkTimes(black, 2500);
    expect(found?.ms).toBeGreaterThan(5300);
    expect(found?.ms).toBeLessThan(5500);
    expect(await darkTimes(black, null)).toEqual([]);
  });

  it.each([
    ['a still that is not black', `color=c=0x204060:${SIZE}:d=8`],
    [
      'a black picture with a line of text',
      `color=c=black:${SIZE}:d=8,drawbox=x=80:y=160:w=480:h=40:c=white:t=fill`,
    ],
    ['a dark picture with noise', `color=c=black:${SIZE}:d=8,noise=alls=12:allf=t`],
    ['a dark picture that moves', `testsrc2=${SIZE}:d=8,eq=brightness=-0.3:contrast=0.3`],
  ])('but not %s', async (_what, source) => {
    expect(await darkTimes(encoded(source, SILENCE, '-preset veryfast -g 50'))).toEqual([]);
  });
});
