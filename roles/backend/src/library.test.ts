import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compareTicks } from '@starling/media/time';
import { defaultLibrarySettings, type LibrarySettings } from '@starling/model/library';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ffmpeg, ffprobe, findFlashesAndBeeps, makeFlashAndBeep } from '../test/flash-and-beep.ts';
import { AssetWriter } from './asset-writer.ts';
import { BackendError } from './error.ts';
import { Library } from './library.ts';

const logger = pino({ level: 'silent' });
/** One rung is enough for most of what is tested here. */
const settings: LibrarySettings = { ...defaultLibrarySettings, ladder: ['720p'] };
let dir: string;
let library: Library;

const options = () => ({ signal: new AbortController().signal, onProgress: () => {} });
const mediaPath = (contentHash: string) => join(dir, 'media', contentHash, 'video.mp4');
const sha256 = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex');

/** What an import fails with. */
async function failure(promise: Promise<unknown>): Promise<BackendError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof BackendError)) throw new Error(`no BackendError but ${error}`);
  return error;
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'starling-library-'));
  library = new Library({ mediaDir: join(dir, 'media'), logger });
  await library.open();
  await makeFlashAndBeep(join(dir, 'clip.mp4'), 5);
});

afterAll(async () => {
  await library.close();
  await rm(dir, { recursive: true });
});

describe('import', { timeout: 60_000 }, () => {
  it('makes the house format: frame grid, closed GOPs, sound on its grid, in time with the picture', async () => {
    const progress: number[] = [];
    const facts = await library.import(join(dir, 'clip.mp4'), settings, {
      signal: new AbortController().signal,
      onProgress: (fraction) => progress.push(fraction),
    });
    // 5 s is 15.6 grids of 0.32 s: 16 of them, 128 frames, 240 audio units.
    expect(facts).toMatchObject({
      durationTicks: 128 * 3600,
      segmentCount: 3,
      widthPx: 1280,
      heightPx: 720,
      frameRate: 25,
    });
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    expect(progress.at(-1)).toBe(1);

    // FFmpeg reads the file as it is, and finds what was promised.
    const path = mediaPath(facts.contentHash);
    const entries =
      'stream=codec_name,profile,width,height,pix_fmt,level,color_space,r_frame_rate,start_time';
    expect(await ffprobe(path, '-show_entries', entries, '-select_streams', 'v')).toEqual([
      'h264,High,1280,720,yuv420p,32,bt709,25/1,0.000000',
    ]);
    const audioEntries = 'stream=codec_name,profile,sample_rate,channels,start_time';
    expect(await ffprobe(path, '-show_entries', audioEntries, '-select_streams', 'a')).toEqual([
      'aac,LC,48000,2,0.000000',
    ]);
    const video = await ffprobe(path, '-select_streams', 'v', '-show_entries', 'packet=pts,dts,flags');
    // The rest of 28 frames is longer than half a GOP: a segment of its own.
    expect(video).toEqual(
      Array.from({ length: 128 }, (_, n) => `${n * 3600},${n * 3600},${n % 50 === 0 ? 'K_' : '__'}`),
    );
    const audio = await ffprobe(path, '-select_streams', 'a', '-show_entries', 'packet=pts');
    expect(audio).toEqual(Array.from({ length: 240 }, (_, k) => `${k * 1024}`));

    const source = await findFlashesAndBeeps(join(dir, 'clip.mp4'));
    const house = await findFlashesAndBeeps(path);
    expect(source.flashSeconds).toHaveLength(5);
    expect(house.flashSeconds).toHaveLength(5);
    expect(house.beepSeconds).toHaveLength(5);
    for (let i = 0; i < 5; i++) {
      // The same frame, and the same sample within 2 ms (the coding smears the onset).
      expect(house.flashSeconds[i]).toBeCloseTo(source.flashSeconds[i] ?? Number.NaN, 3);
      expect(Math.abs((house.beepSeconds[i] ?? 0) - (i + 0.48))).toBeLessThan(0.002);
    }
  });

  it('gives the asset back in segments, each with the sound that starts in it', async () => {
    const { contentHash } = await library.import(join(dir, 'clip.mp4'), settings, options());
    const asset = await library.openAsset(contentHash);
    expect(await library.openAsset(contentHash)).toBe(asset);
    const units = { video: 0, audio: 0 };
    for (const [i, segment] of asset.index.segments.entries()) {
      expect(segment.startTicks).toBe(i * 180_000);
      for (const unit of await asset.readSegment(i)) {
        const hz = unit.kind === 'video' ? 90_000 : 48_000;
        expect(compareTicks(unit.dtsTicks, hz, segment.startTicks, 90_000)).toBeGreaterThanOrEqual(0);
        expect(compareTicks(unit.dtsTicks, hz, asset.segmentEndTicks(i), 90_000)).toBeLessThan(0);
        units[unit.kind] += 1;
      }
    }
    expect(units).toEqual({ video: 128, audio: 240 });
  });

  it('makes the same bytes of the same source in another library', async () => {
    const facts = await library.import(join(dir, 'clip.mp4'), settings, options());
    const other = new Library({ mediaDir: join(dir, 'other'), logger });
    await other.open();
    const again = await other.import(join(dir, 'clip.mp4'), settings, options());
    expect(again).toEqual(facts);
    expect(await sha256(join(dir, 'other', again.contentHash, 'video.mp4'))).toBe(
      await sha256(mediaPath(facts.contentHash)),
    );
    await other.close();
  });

  it('makes one codec configuration of every kind of source', async () => {
    const sources: Record<string, (string | string[])[]> = {
      // 23.976 fps, mono
      'film.mp4': [
        '-f lavfi -i testsrc2=s=320x180:r=24000/1001:d=1 -f lavfi -i sine=r=22050:d=1 -preset ultrafast',
      ],
      // 29.97 fps, 5.1
      'ntsc.mkv': [
        '-f lavfi -i testsrc2=s=320x240:r=30000/1001:d=1',
        '-f lavfi -i aevalsrc=0.1*sin(880*t)|0|0|0|0|0:c=5.1:s=48000:d=1 -c:a ac3 -preset ultrafast',
      ],
      // 60 fps, 10 bit 4:2:2, HLG, no sound
      'hdr.mkv': [
        '-f lavfi -i testsrc2=s=320x180:r=60:d=1 -pix_fmt yuv422p10le -preset ultrafast',
        '-color_primaries bt2020 -color_trc arib-std-b67 -colorspace bt2020nc',
      ],
      // interlaced PAL with wide pixels
      'pal.ts': [
        '-f lavfi -i testsrc2=s=720x576:r=25:d=1 -vf setsar=64/45 -c:v mpeg2video -flags +ilme+ildct',
      ],
      // no picture
      'sound.mp3': ['-f lavfi -i sine=r=44100:d=1'],
    };
    const frameRates: number[] = [];
    const configurations = new Set<string>();
    for (const [name, args] of Object.entries(sources)) {
      await ffmpeg(...args, [join(dir, name)]);
      const facts = await library.import(join(dir, name), settings, options());
      frameRates.push(facts.frameRate);
      configurations.add(facts.configHash);
      const path = mediaPath(facts.contentHash);
      const [rate] = await ffprobe(path, '-select_streams', 'v', '-show_entries', 'stream=r_frame_rate');
      expect(rate).toBe(`${facts.frameRate}/1`);
      const played = await ffmpeg(['-i', path], '-map 0:v -vf scale=1:1,format=gray -f rawvideo -');
      expect(played.length / facts.frameRate).toBeCloseTo(facts.durationTicks / 90_000);
    }
    expect(frameRates).toEqual([24, 30, 60, 25, 25]);
    const { configHash } = await library.import(join(dir, 'clip.mp4'), settings, options());
    expect([...configurations]).toEqual([configHash]);
  });

  it('keeps the sound in its place where it starts late', async () => {
    await ffmpeg(
      ['-i', join(dir, 'clip.mp4'), '-itsoffset', '0.7', '-i', join(dir, 'clip.mp4')],
      '-map 0:v -map 1:a -c copy -t 3',
      [join(dir, 'late.mkv')],
    );
    const { contentHash } = await library.import(join(dir, 'late.mkv'), settings, options());
    const { beepSeconds } = await findFlashesAndBeeps(mediaPath(contentHash));
    expect(beepSeconds[0]).toBeCloseTo(1.18, 2);
  });

  it('keeps the sound in its place where its format changes in mid-file', async () => {
    const part = (filters: string, offset: number, name: string) =>
      ffmpeg(
        `-f lavfi -i testsrc2=s=320x180:r=25:d=2 -f lavfi -i ${filters} -c:v mpeg2video -c:a mp2 -output_ts_offset ${offset}`,
        [join(dir, name)],
      );
    await part('aevalsrc=0:s=48000:d=2:c=stereo', 0, 'a.ts');
    await part('aevalsrc=0.5*sin(2*PI*1000*t)*gt(t\\,1):s=44100:d=2:c=mono', 2, 'b.ts');
    await writeFile(
      join(dir, 'change.ts'),
      Buffer.concat([await readFile(join(dir, 'a.ts')), await readFile(join(dir, 'b.ts'))]),
    );
    const { contentHash } = await library.import(join(dir, 'change.ts'), settings, options());
    const { beepSeconds } = await findFlashesAndBeeps(mediaPath(contentHash));
    // MPEG audio starts a few milliseconds early and an AAC unit may have been repeated.
    expect(Math.abs((beepSeconds[0] ?? 0) - 3)).toBeLessThan(0.04);
  });
});

describe('an import that cannot be done says why in one sentence', { timeout: 30_000 }, () => {
  const write = async (name: string, bytes: Uint8Array | string) => {
    await writeFile(join(dir, name), bytes);
    return join(dir, name);
  };

  it('missing, a folder, empty, unreadable', async () => {
    expect(await failure(library.import(join(dir, 'none.mp4'), settings, options()))).toMatchObject({
      code: 'IMPORT_FILE_MISSING',
      message: `${join(dir, 'none.mp4')} does not exist: check the path.`,
    });
    expect((await failure(library.import(dir, settings, options()))).code).toBe('IMPORT_FILE_UNREADABLE');
    expect((await failure(library.import(await write('empty.mp4', ''), settings, options()))).code).toBe(
      'IMPORT_FILE_EMPTY',
    );
  });

  it('not media: noise, text, a picture, a list that names other files', async () => {
    const noise = createHash('sha512').update('noise').digest();
    await ffmpeg('-f lavfi -i color=s=16x16 -frames:v 1', [join(dir, 'picture.png')]);
    const paths = [
      await write('noise.mp4', Buffer.concat(Array.from({ length: 500 }, () => noise))),
      await write('text.mp4', 'Dear diary'),
      join(dir, 'picture.png'),
      await write('list.mp4', `#EXTM3U\n#EXTINF:5,\nfile://${join(dir, 'clip.mp4')}\n#EXT-X-ENDLIST\n`),
      await write('concat.mp4', `ffconcat version 1.0\nfile ${join(dir, 'clip.mp4')}\n`),
    ];
    for (const path of paths) {
      const { code, message } = await failure(library.import(path, settings, options()));
      expect(code).toBe('IMPORT_NOT_MEDIA');
      expect(message).toContain(path);
    }
  });

  it('damaged: cut off before the index, or without its data', async () => {
    const clip = await readFile(join(dir, 'clip.mp4'));
    const cut = await write('cut.mp4', clip.subarray(0, clip.length / 2));
    expect((await failure(library.import(cut, settings, options()))).code).toBe('IMPORT_NOT_MEDIA');
    const media = clip.indexOf('mdat') + 4;
    const blank = Buffer.from(clip).fill(0, media, clip.indexOf('moov') - 4);
    const { code, message } = await failure(library.import(await write('blank.mp4', blank), settings, options()));
    expect(code).toBe('IMPORT_NOT_MEDIA');
    expect(message).toMatch(/is damaged: .*\.$/);
  });

  it('nothing but subtitles', async () => {
    await write('words.srt', '1\n00:00:00,000 --> 00:00:01,000\nHello\n');
    await ffmpeg(['-i', join(dir, 'words.srt'), join(dir, 'words.mkv')]);
    expect((await failure(library.import(join(dir, 'words.mkv'), settings, options()))).code).toBe('IMPORT_NO_STREAMS');
  });

  it('encrypted', async () => {
    const path = join(dir, 'encrypted.mp4');
    await ffmpeg(
      ['-i', join(dir, 'clip.mp4')],
      '-c copy -encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb',
      ['-encryption_kid', 'a7e61c373e219033c21091fa607bf3b8', path],
    );
    expect(await failure(library.import(path, settings, options()))).toMatchObject({
      code: 'IMPORT_ENCRYPTED',
      message: `${path} is encrypted (DRM), so it cannot be imported.`,
    });
  });

  it('no FFmpeg', async () => {
    const without = new Library({ mediaDir: join(dir, 'media'), logger, ffprobePath: 'ffprobe-none' });
    expect(await failure(without.import(join(dir, 'clip.mp4'), settings, options()))).toMatchObject({
      code: 'IMPORT_FFMPEG_MISSING',
      message: expect.stringContaining('install FFmpeg'),
    });
  });

  /** A stand-in for FFmpeg. */
  const libraryWith = async (name: string, script: string) => {
    // Which encoders it has is asked first.
    const identity = 'case "$*" in *-version*|*"-f h264"*) exit 0;; esac';
    const ffmpegPath = await write(name, `#!/bin/sh\n${identity}\n${script}\n`);
    await chmod(ffmpegPath, 0o755);
    const mediaDir = join(dir, `media of ${name}`);
    const made = new Library({ mediaDir, logger, ffmpegPath });
    await made.open();
    return { made, mediaDir };
  };

  it('FFmpeg crashes', async () => {
    const { made, mediaDir } = await libraryWith(
      'crash',
      'echo "[x264 @ 0x5] out of memory" >&2; kill -SEGV $$',
    );
    expect(await failure(made.import(join(dir, 'clip.mp4'), settings, options()))).toMatchObject({
      code: 'IMPORT_FFMPEG_FAILED',
      message: `FFmpeg could not convert ${join(dir, 'clip.mp4')}: out of memory.`,
    });
    expect(await readdir(mediaDir)).toEqual([]);
  });

  it('FFmpeg ends too early, as if all were well', async () => {
    const { made, mediaDir } = await libraryWith('short', 'exit 0');
    expect((await failure(made.import(join(dir, 'clip.mp4'), settings, options()))).message).toContain(
      '0 of 128 frames',
    );
    expect(await readdir(mediaDir)).toEqual([]);
  });

  it('FFmpeg stalls', async () => {
    const { made, mediaDir } = await libraryWith(
      'stall',
      `sleep 1000 & echo $! > '${join(dir, 'stall.pid')}'; wait`,
    );
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const failed = failure(made.import(join(dir, 'clip.mp4'), settings, options()));
      await vi.waitFor(
        async () => expect(await readFile(join(dir, 'stall.pid'), 'utf8')).toMatch(/\n/),
        5000,
      );
      await vi.advanceTimersByTimeAsync(60_000);
      expect((await failed).code).toBe('IMPORT_STALLED');
    } finally {
      vi.useRealTimers();
    }
    // FFmpeg's own children are gone too (a zombie waits only for whoever adopted it).
    const pid = (await readFile(join(dir, 'stall.pid'), 'utf8')).trim();
    expect(spawnSync('ps', ['-o', 'stat=', '-p', pid], { encoding: 'utf8' }).stdout).toMatch(/^Z|^$/);
    expect(await readdir(mediaDir)).toEqual([]);
  });

  it('the disk is full', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), {
      code: 'ENOSPC',
      syscall: 'write',
    });
    const finish = vi.spyOn(AssetWriter.prototype, 'push').mockRejectedValue(full);
    const mediaDir = join(dir, 'full');
    const made = new Library({ mediaDir, logger });
    await made.open();
    expect(await failure(made.import(join(dir, 'clip.mp4'), settings, options()))).toMatchObject({
      code: 'IMPORT_DISK_FULL',
      message: `The disk of ${mediaDir} is full: free some space and import again.`,
    });
    finish.mockRestore();
    expect(await readdir(mediaDir)).toEqual([]);
  });
});

describe('the store', { timeout: 30_000 }, () => {
  it('cancels an import, leaving neither FFmpeg nor files behind', async () => {
    const mediaDir = join(dir, 'cancelled');
    const made = new Library({ mediaDir, logger });
    await made.open();
    const cancel = new AbortController();
    const importing = made.import(join(dir, 'clip.mp4'), settings, {
      signal: cancel.signal,
      onProgress: (fraction) => {
        if (fraction > 0.2) cancel.abort();
      },
    });
    expect((await failure(importing)).code).toBe('IMPORT_CANCELLED');
    expect(await readdir(mediaDir)).toEqual([]);

    const closing = failure(made.import(join(dir, 'clip.mp4'), settings, options()));
    await made.close();
    expect((await closing).code).toBe('IMPORT_CANCELLED');
    expect(await readdir(mediaDir)).toEqual([]);
  });

  it('sweeps what an interrupted import left, and keeps whole assets', async () => {
    const { contentHash } = await library.import(join(dir, 'clip.mp4'), settings, options());
    await mkdir(join(dir, 'media', 'tmp-0011223344556677'));
    await writeFile(join(dir, 'media', 'tmp-0011223344556677', 'video.mp4'), 'half');
    const next = new Library({ mediaDir: join(dir, 'media'), logger });
    await next.open();
    const names = await readdir(join(dir, 'media'));
    expect(names).toContain(contentHash);
    expect(names.filter((name) => name.startsWith('tmp-'))).toEqual([]);
  });

  it('makes an asset anew that was damaged on the disk', async () => {
    const { contentHash } = await library.import(join(dir, 'clip.mp4'), settings, options());
    const before = await sha256(mediaPath(contentHash));
    await writeFile(join(dir, 'media', contentHash, 'asset.json'), '{"facts":');
    const next = new Library({ mediaDir: join(dir, 'media'), logger });
    expect((await failure(next.openAsset(contentHash))).code).toBe('ASSET_DAMAGED');
    expect((await next.import(join(dir, 'clip.mp4'), settings, options())).contentHash).toBe(contentHash);
    expect(await sha256(mediaPath(contentHash))).toBe(before);
  });

  it('removes what nothing uses, but not what was only just imported', async () => {
    const mediaDir = join(dir, 'retained');
    const made = new Library({ mediaDir, logger });
    await made.open();
    await ffmpeg('-f lavfi -i sine=d=0.1', [join(dir, 'short.mp3')]);
    const { contentHash } = await made.import(join(dir, 'short.mp3'), settings, options());
    await made.retain([]);
    expect(await readdir(mediaDir)).toEqual([contentHash]);
    await made.retain([contentHash]);
    await made.retain([]);
    expect(await readdir(mediaDir)).toEqual([]);
    expect((await failure(made.openAsset(contentHash))).code).toBe('ASSET_MISSING');
    await made.remove(contentHash); // does nothing
  });
});
