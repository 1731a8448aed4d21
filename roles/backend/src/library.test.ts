import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compareTicks } from '@starling/media/time';
import { defaultLibrarySettings, type LibrarySettings } from '@starling/model/library';
import type { AssetFacts } from '@starling/model/schedule';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ffmpeg, ffprobe, findFlashesAndBeeps, makeFlashAndBeep } from '../test/flash-and-beep.ts';
import { AssetFile } from './asset-file.ts';
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

/** Integrated loudness and true peak of each sound, as FFmpeg's `ebur128` measures them. */
async function measureLoudness(path: string, trackId = 0): Promise<{ lufs: number; peakDb: number }> {
  const args = ['-nostdin', '-hide_banner', '-i', path, '-map', `0:a:${trackId}`];
  args.push('-af', 'ebur128=peak=true:framelog=verbose', '-f', 'null', '-');
  const { stderr } = spawnSync('ffmpeg', args, { encoding: 'utf8' });
  return {
    lufs: Number(/ I: +(-?[\d.]+) LUFS/.exec(stderr)?.[1]),
    peakDb: Number(/ Peak: +(-?[\d.]+) dBFS/.exec(stderr)?.[1]),
  };
}

describe('what an import makes of a film', { timeout: 60_000 }, () => {
  let facts: AssetFacts;
  const filePath = (name: string) => join(dir, 'media', facts.contentHash, name);

  beforeAll(async () => {
    await writeFile(
      join(dir, 'words.srt'),
      '1\n00:00:01,000 --> 00:00:02,500\nGuten Abend.\n\n2\n00:00:03,000 --> 00:00:04,000\n<i>Ende</i>\n',
    );
    // English at -33 LUFS or so, German far too loud, a commentary; two subtitles of which one is empty.
    await writeFile(join(dir, 'none.srt'), '');
    await ffmpeg(
      '-f lavfi -i testsrc2=s=640x360:r=25:d=5',
      '-f lavfi -i sine=f=500:d=5,volume=-15dB -f lavfi -i aevalsrc=0.99*sin(2*PI*300*t)|0.9*sin(2*PI*200*t):d=5',
      ['-i', join(dir, 'words.srt')],
      '-map 0:v -map 1:a -map 2:a -map 1:a -map 3:s -c:v libx264 -preset ultrafast -c:a aac -c:s srt',
      '-metadata:s:a:0 language=eng -metadata:s:a:1 language=ger -metadata:s:a:2 language=eng',
      '-disposition:a:2 comment -metadata:s:s:0 language=ger',
      ['-metadata:s:s:0', 'title=Für alle', join(dir, 'film.mkv')],
    );
    const wanted = { ...defaultLibrarySettings, languages: ['de'] };
    facts = await library.import(join(dir, 'film.mkv'), wanted, options());
  }, 60_000);

  it('has a picture for every rung of the ladder, with the key frames at the same times', async () => {
    expect(facts.videoTracks.map(({ widthPx, heightPx }) => [widthPx, heightPx])).toEqual([
      [1920, 1080],
      [1280, 720],
      [854, 480],
    ]);
    expect(facts).toMatchObject({ widthPx: 1920, heightPx: 1080 });
    const path = filePath('video.mp4');
    const entries = 'stream=profile,width,height,level,sample_aspect_ratio';
    expect(await ffprobe(path, '-show_entries', entries, '-select_streams', 'v')).toEqual([
      'High,1920,1080,1:1,42',
      'High,1280,720,1:1,32',
      'High,854,480,1:1,31',
    ]);
    const keyFrames = await Promise.all(
      [0, 1, 2].map(async (trackId) => {
        const packets = await ffprobe(
          path,
          '-select_streams',
          `v:${trackId}`,
          '-show_entries',
          'packet=pts,flags',
        );
        expect(packets).toHaveLength(128);
        return packets.filter((packet) => packet.includes('K'));
      }),
    );
    expect(keyFrames[0]).toEqual(['0,K_', '180000,K_', '360000,K_']);
    expect(keyFrames[1]).toEqual(keyFrames[0]);
    expect(keyFrames[2]).toEqual(keyFrames[0]);
    // The source is one of 480p. So 1080p gets 1080 / 480 of that rung's 1.8 Mb/s, and once its buffer of 2 s.
    for (const { heightPx, bitrateBps } of facts.videoTracks) {
      expect(bitrateBps).toBeLessThan(((1_800_000 * heightPx) / 480) * (1 + 2 / 5.12));
    }
  });

  it('has one sound of each language, the wanted one first, all at the loudness of the house', async () => {
    expect(facts.audioTracks).toEqual([
      { language: 'de', loudnessLufs: expect.any(Number), gainDb: expect.any(Number) },
      { language: 'en', loudnessLufs: expect.any(Number), gainDb: expect.any(Number) },
    ]);
    for (const [trackId, { loudnessLufs, gainDb }] of facts.audioTracks.entries()) {
      expect((loudnessLufs ?? 0) + gainDb).toBeCloseTo(-23, 1);
      const { lufs } = await measureLoudness(filePath('video.mp4'), trackId);
      expect(Math.abs(lufs + 23)).toBeLessThanOrEqual(0.3);
    }
    expect(facts.audioTracks[0]?.gainDb).toBeLessThan(-15);
    expect(facts.audioTracks[1]?.gainDb).toBeGreaterThan(5);
    const asset = await library.openAsset(facts.contentHash);
    expect(asset.tracks.map((track) => [track.kind, track.trackId])).toEqual([
      ...[0, 1, 2].map((trackId) => ['video', trackId]),
      ...[0, 1].map((trackId) => ['audio', trackId]),
    ]);
    expect(asset.tracks[3]).toMatchObject({ language: 'de' });
    const units = await asset.readSegment(2);
    const count = (kind: string, trackId: number) =>
      units.filter((unit) => unit.kind === kind && unit.trackId === trackId).length;
    expect([count('video', 0), count('video', 1), count('video', 2)]).toEqual([28, 28, 28]);
    expect(count('audio', 1)).toBe(count('audio', 0));
  });

  it('has its subtitles as WebVTT', async () => {
    expect(facts.subtitles).toEqual([{ language: 'de', title: 'Für alle', fileName: 'subtitles-1.vtt' }]);
    // FFmpeg put all streams 23 ms later into the film: the length of the AAC priming.
    expect(await readFile(filePath('subtitles-1.vtt'), 'utf8')).toBe(
      'WEBVTT\n\n00:01.023 --> 00:02.523\nGuten Abend.\n\n00:03.023 --> 00:04.023\n<i>Ende</i>\n',
    );
  });

  it('has a poster, and thumbnails with their map', async () => {
    expect(facts.hasPictures).toBe(true);
    const size = (name: string) => ffprobe(filePath(name), '-show_entries', 'stream=codec_name,width,height');
    expect(await size('poster.jpg')).toEqual(['mjpeg,1280,720']);
    expect(await size('thumbnails-1.jpg')).toEqual(['mjpeg,1600,900']);
    expect(await readFile(filePath('thumbnails.vtt'), 'utf8')).toBe(
      [
        'WEBVTT\n',
        '00:00:00.000 --> 00:00:02.000\nthumbnails-1.jpg#xywh=0,0,160,90\n',
        '00:00:02.000 --> 00:00:04.000\nthumbnails-1.jpg#xywh=160,0,160,90\n',
        '00:00:04.000 --> 00:00:05.120\nthumbnails-1.jpg#xywh=320,0,160,90\n',
      ].join('\n'),
    );
    const grey = 'format=gray -f rawvideo -';
    const second = await ffmpeg(['-i', filePath('thumbnails-1.jpg')], `-vf crop=160:90:160:0,${grey}`);
    const distances: number[] = [];
    for (const seconds of ['0', '2', '4']) {
      const source = ['-ss', seconds, '-i', join(dir, 'film.mkv')];
      const frame = await ffmpeg(source, `-frames:v 1 -vf scale=160:90,${grey}`);
      distances.push(second.reduce((sum, level, i) => sum + Math.abs(level - (frame[i] ?? 0)), 0));
    }
    expect(distances.indexOf(Math.min(...distances))).toBe(1);
  });

  it('is the same bytes on any number of cores', async () => {
    const onOneCore = join(dir, 'ffmpeg-on-one-core');
    await writeFile(onOneCore, '#!/bin/sh\nexec taskset -c 0 ffmpeg "$@"\n');
    await chmod(onOneCore, 0o755);
    const mediaDir = join(dir, '100 %d on one core');
    const other = new Library({ mediaDir, logger, ffmpegPath: onOneCore });
    await other.open();
    const wanted = { ...defaultLibrarySettings, languages: ['de'] };
    expect(await other.import(join(dir, 'film.mkv'), wanted, options())).toEqual(facts);
    for (const name of await readdir(join(mediaDir, facts.contentHash))) {
      expect([name, await sha256(join(mediaDir, facts.contentHash, name))]).toEqual([
        name,
        await sha256(filePath(name)),
      ]);
    }
  });

  it('has no rung above what the source holds where the settings say so', async () => {
    const { videoTracks } = await library.import(
      join(dir, 'film.mkv'),
      { ...defaultLibrarySettings, ladder: ['1080p', '720p', '480p', '360p'], scalesUp: false },
      options(),
    );
    expect(videoTracks.map(({ heightPx }) => heightPx)).toEqual([360]);
  });

  it('raises quiet sound only as far as its peaks allow, and silence not at all', async () => {
    const clicking = '0.7*lt(mod(t\\,2)\\,0.0003)+0.004*sin(2*PI*500*t)';
    await ffmpeg(['-f', 'lavfi', '-i', `aevalsrc=${clicking}|${clicking}:d=4`, join(dir, 'clicks.wav')]);
    const clicks = await library.import(join(dir, 'clicks.wav'), settings, options());
    const [sound] = clicks.audioTracks;
    expect((sound?.loudnessLufs ?? 0) + (sound?.gainDb ?? 0)).toBeLessThan(-25);
    const { peakDb } = await measureLoudness(join(dir, 'clicks.wav'));
    expect(peakDb + (sound?.gainDb ?? 0)).toBeCloseTo(-1, 0);
    expect(clicks.hasPictures).toBe(false);

    await ffmpeg('-f lavfi -i anullsrc=d=1', [join(dir, 'silence.wav')]);
    const silence = await library.import(join(dir, 'silence.wav'), settings, options());
    expect(silence.audioTracks).toEqual([{ language: null, loudnessLufs: null, gainDb: 0 }]);
  });

  it('has another name where FFmpeg is another one', async () => {
    const otherVersion = join(dir, 'ffmpeg-of-another-version');
    const version = 'case "$*" in *-version*) echo "ffmpeg version 99"; exit 0;; esac';
    await writeFile(otherVersion, `#!/bin/sh\n${version}\nexec ffmpeg "$@"\n`);
    await chmod(otherVersion, 0o755);
    const other = new Library({ mediaDir: join(dir, 'other version'), logger, ffmpegPath: otherVersion });
    await other.open();
    await ffmpeg('-f lavfi -i sine=d=0.1', [join(dir, 'blip.mp3')]);
    const here = await library.import(join(dir, 'blip.mp3'), settings, options());
    const there = await other.import(join(dir, 'blip.mp3'), settings, options());
    expect(there.contentHash).not.toBe(here.contentHash);
    expect(there.configHash).toBe(here.configHash);
  });
});

describe('a URL', { timeout: 60_000 }, () => {
  let site: string;
  let server: Server;
  const asked: string[] = [];
  const open = { ...settings, allowsPrivateUrls: true };

  beforeAll(async () => {
    await mkdir(join(dir, 'hls'));
    await ffmpeg(['-i', join(dir, 'clip.mp4')], '-c copy -f hls -hls_time 1 -hls_playlist_type vod', [
      join(dir, 'hls', 'index.m3u8'),
    ]);
    const vod = await readFile(join(dir, 'hls', 'index.m3u8'), 'utf8');
    await writeFile(
      join(dir, 'hls', 'live.m3u8'),
      vod.replace('#EXT-X-ENDLIST\n', '').replace(/.*TYPE.*\n/, ''),
    );
    await writeFile(join(dir, 'hls', 'thief.m3u8'), vod.replace(/index0\.ts/, `file://${dir}/hls/index0.ts`));
    server = createServer(async (request, response) => {
      const path = new URL(request.url ?? '', 'http://h').pathname;
      asked.push(path);
      if (path === '/moved') response.writeHead(302, { location: '/clip.mp4' }).end();
      else if (path === '/round') response.writeHead(302, { location: '/round' }).end();
      else if (path === '/busy') response.writeHead(503).end();
      else if (path === '/cut.mp4') {
        response.writeHead(200, { 'content-length': 1_000_000 });
        response.write('x', () => response.destroy());
      } else {
        const bytes = await readFile(join(dir, path)).catch(() => undefined);
        response.writeHead(bytes === undefined ? 404 : 200).end(bytes);
      }
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    site = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  });

  afterAll(() => server.close());

  it('of a file makes the same asset as the file, through a redirect', async () => {
    const fromFile = await library.import(join(dir, 'clip.mp4'), settings, options());
    expect(await library.import(`${site}/moved?key=secret`, open, options())).toEqual(fromFile);
  });

  it('of a playlist makes an asset of what it names', async () => {
    const facts = await library.import(`${site}/hls/index.m3u8`, open, options());
    expect(facts.durationTicks).toBe(128 * 3600);
    const { flashSeconds } = await findFlashesAndBeeps(mediaPath(facts.contentHash));
    expect(flashSeconds).toHaveLength(5);
  });

  it.each([
    ['/none.mp4', 'IMPORT_URL_REFUSED', 'it answered 404'],
    ['/round', 'IMPORT_URL_FAILED', 'again and again'],
    ['/busy', 'IMPORT_URL_FAILED', 'it answered 503'],
    ['/cut.mp4', 'IMPORT_URL_FAILED', 'cannot be fetched'],
    ['/words.srt', 'IMPORT_NOT_MEDIA', 'not video or sound'],
    ['/hls/live.m3u8', 'IMPORT_URL_LIVE', 'is a live stream'],
  ])('says in one sentence what is wrong with %s', async (path, code, reason) => {
    const error = await failure(library.import(`${site}${path}?key=secret`, open, options()));
    expect(error).toMatchObject({ code, message: expect.stringContaining(reason) });
    expect(error.message).toContain(`${site}${path} `);
    expect(error.message).not.toContain('secret');
    expect((await readdir(join(dir, 'media'))).filter((name) => name.startsWith('tmp-'))).toEqual([]);
  });

  it('never makes a playlist read a file', async () => {
    const error = await failure(library.import(`${site}/hls/thief.m3u8`, open, options()));
    expect(error.code).toMatch(/IMPORT_(URL_FAILED|NOT_MEDIA)/);
  });

  it('leads nowhere private unless that is allowed, and asks nothing', async () => {
    asked.length = 0;
    for (const url of [
      `${site}/clip.mp4`,
      site.replace('127.0.0.1', 'localhost'),
      'http://169.254.169.254/',
    ]) {
      expect(await failure(library.import(url, settings, options()))).toMatchObject({
        code: 'IMPORT_URL_REFUSED',
        message: expect.stringContaining('leads into a private network'),
      });
    }
    expect(asked).toEqual([]);
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
    const { code, message } = await failure(
      library.import(await write('blank.mp4', blank), settings, options()),
    );
    expect(code).toBe('IMPORT_NOT_MEDIA');
    expect(message).toMatch(/is damaged: .*\.$/);
  });

  it('nothing but subtitles', async () => {
    await write('words.srt', '1\n00:00:00,000 --> 00:00:01,000\nHello\n');
    await ffmpeg(['-i', join(dir, 'words.srt'), join(dir, 'words.mkv')]);
    expect((await failure(library.import(join(dir, 'words.mkv'), settings, options()))).code).toBe(
      'IMPORT_NO_STREAMS',
    );
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

  it('longer than allowed: ten hours', async () => {
    const path = join(dir, 'long.mp4');
    await ffmpeg('-f lavfi -i color=s=16x16:r=1/10:d=36000 -c:v libx264 -preset ultrafast', [path]);
    expect(await failure(library.import(path, settings, options()))).toMatchObject({
      code: 'IMPORT_TOO_LONG',
      message: expect.stringMatching(
        /long\.mp4 is 10 h long; at most 8 h are imported\. .+--max-hours HOURS$/,
      ),
    });
  });

  it('written to while it was imported', async () => {
    const path = join(dir, 'growing.mp3');
    await ffmpeg('-f lavfi -i sine=f=333:d=20', [path]);
    let isTouched = false;
    const importing = library.import(path, settings, {
      signal: new AbortController().signal,
      onProgress: (fraction) => {
        if (fraction > 0.2 && !isTouched) appendFileSync(path, 'more');
        isTouched ||= fraction > 0.2;
      },
    });
    expect((await failure(importing)).code).toBe('IMPORT_FILE_CHANGED');
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

  it('takes no more than it may hold, neither at the start nor in the middle, and again when there is room', async () => {
    const mediaDir = join(dir, 'bounded');
    const made = new Library({ mediaDir, logger });
    await made.open();
    const bounded = (maxStoreBytes: number) => ({ ...settings, maxStoreBytes });
    const tooSmall = await failure(made.import(join(dir, 'clip.mp4'), bounded(10_000), options()));
    expect(tooSmall).toMatchObject({
      code: 'IMPORT_STORE_FULL',
      message: expect.stringMatching(/^The library is full: .+ Remove assets with `starling media rm`/),
    });
    expect(await readdir(mediaDir)).toEqual([]);
    const facts = await made.import(join(dir, 'clip.mp4'), bounded(10_000_000), options());
    const { sizeBytes, contentHash } = facts;
    const reopened = new Library({ mediaDir, logger });
    await reopened.open();
    await reopened.takeOver();
    const full = await failure(reopened.import(join(dir, 'film.mkv'), bounded(sizeBytes), options()));
    expect(full.code).toBe('IMPORT_STORE_FULL');
    // What is there already needs no room.
    expect(await reopened.import(join(dir, 'clip.mp4'), bounded(sizeBytes), options())).toEqual(facts);
    await reopened.remove(contentHash);
    await reopened.import(join(dir, 'clip.mp4'), bounded(sizeBytes + 1_000_000), options());
  });

  it('sweeps what an interrupted import left, and keeps whole assets', async () => {
    const { contentHash } = await library.import(join(dir, 'clip.mp4'), settings, options());
    await mkdir(join(dir, 'media', 'tmp-0011223344556677'));
    await writeFile(join(dir, 'media', 'tmp-0011223344556677', 'video.mp4'), 'half');
    const next = new Library({ mediaDir: join(dir, 'media'), logger });
    await next.open();
    await next.takeOver();
    const names = await readdir(join(dir, 'media'));
    expect(names).toContain(contentHash);
    expect(names.filter((name) => name.startsWith('tmp-'))).toEqual([]);
  });

  it('reads assets from before there were ladders', async () => {
    const { contentHash } = await library.import(join(dir, 'clip.mp4'), settings, options());
    const indexPath = join(dir, 'media', contentHash, 'asset.json');
    const text = await readFile(indexPath, 'utf8');
    const index = JSON.parse(text);
    for (const name of ['videoTracks', 'audioTracks', 'subtitles', 'hasPictures']) delete index.facts[name];
    await writeFile(indexPath, JSON.stringify(index));
    const asset = await AssetFile.open(join(dir, 'media', contentHash));
    expect(asset.index.facts).toMatchObject({
      videoTracks: [{ widthPx: 1280, heightPx: 720 }],
      audioTracks: [{ language: null, gainDb: 0 }],
    });
    expect(asset.tracks).toHaveLength(2);
    await writeFile(indexPath, text);
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
