/**
 * The test card: 32 s that loop without a seam, drawn by FFmpeg alone. Its frame number is burned in
 * twice, as a timecode to be read by people and as a strip of squares to be read by programs.
 */
import type { AssetFacts } from '@starling/model/schedule';
import { BackendError } from './error.ts';
import type { GeneratedSource, ImportOptions, Library } from './library.ts';

const FRAME_RATE = 25;
const DURATION_SECONDS = 32;
export const TEST_CARD_FRAME_COUNT = FRAME_RATE * DURATION_SECONDS;

/**
 * Along the bottom edge: the frame number in binary, the lowest bit on the left, white for 1. Square
 * k has its centre at `leftPx + k * pitchPx`, `centreYPx`.
 */
export const FRAME_STRIP = { bits: 10, leftPx: 64, pitchPx: 128, centreYPx: 686, sizePx: 52 } as const;

/** Raise it when the drawing changes. */
const VERSION = 1;

/** Makes the test card, or finds it in the library. Without a font it has no words on it. */
export async function importTestCard(library: Library, options: ImportOptions): Promise<AssetFacts> {
  try {
    return await library.importFrom(testCard({ hasText: true }), options);
  } catch (error) {
    // FFmpeg without drawtext, or a machine without fonts.
    if (!(error instanceof BackendError) || error.code !== 'IMPORT_FFMPEG_FAILED') throw error;
    return await library.importFrom(testCard({ hasText: false }), options);
  }
}

/** The test card as an input of FFmpeg. */
export function testCard(options: { hasText: boolean }): GeneratedSource {
  return {
    args: ['-f', 'lavfi', '-i', `${picture(options.hasText)};${sound()}`],
    identity: `test card ${VERSION}${options.hasText ? '' : ' without text'}`,
    durationMs: DURATION_SECONDS * 1000,
  };
}

const INK = '0xeef2ff';
const DIM_INK = '0x9fb0d8';
/** EBU bars at 75 %, in the order of falling luma (ITU-R BT.471). */
const BAR_COLOURS = [
  '0xbfbfbf',
  '0xbfbf00',
  '0x00bfbf',
  '0x00bf00',
  '0xbf00bf',
  '0xbf0000',
  '0x0000bf',
  '0x0b0f1a',
];
const GREY_STEPS = 11;

function picture(hasText: boolean): string {
  // Drawn once and repeated: what stands still costs nothing per frame.
  const still = [
    `color=c=black:s=1280x720:r=${FRAME_RATE}:d=0.04,format=gbrp`,
    `geq=r='${nightSky(8, 20)}':g='${nightSky(12, 30)}':b='${nightSky(28, 62)}'`,
    ...bars(),
    ...(hasText ? words() : []),
    'scale=out_color_matrix=bt709:out_range=tv,format=yuv420p',
    `loop=loop=-1:size=1:start=0,setpts=N/${FRAME_RATE}/TB`,
  ];
  const moving = [...(hasText ? timecode() : []), ...flash(), ...frameStrip()];
  return [
    `${still.join(',')}[still]`,
    // A planet that goes round the circle in 8 s, and its moon, in 1 s.
    `color=c=0xffd27a:s=18x18:r=${FRAME_RATE},format=yuva420p,geq=lum='p(X,Y)':cb='p(X,Y)':cr='p(X,Y)':a='255*lt(hypot(X-8.5,Y-8.5),8.8)',loop=loop=-1:size=1,setpts=N/${FRAME_RATE}/TB[planet]`,
    `[still][planet]overlay=x='1084+96*sin(2*PI*n/200)-9':y='160-96*cos(2*PI*n/200)-9':eval=frame:shortest=0[orbit]`,
    `[orbit]${moving.join(',')},trim=duration=${DURATION_SECONDS},setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709[out0]`,
  ].join(';');
}

/** A night sky: darker to the bottom, with stars from a hash of the place, one in 4000 points. */
function nightSky(bottom: number, top: number): string {
  const glow = `${bottom}+${top - bottom}*(1-Y/H)*(0.55+0.45*cos((X-W*0.38)/W*2))`;
  const hash = `mod(abs(sin(X*12.9898+Y*78.233)*43758.5453),1)`;
  const star = `gt(${hash},0.99972)*lt(Y,640)*(60+160*mod(abs(sin(X*3.1+Y*7.7)*917.3),1))`;
  const ring = `26*lt(abs(hypot(X-1084,Y-160)-96),1.1)`;
  return `min(255,${glow}+${star}+${ring})`;
}

function box(x: number, y: number, width: number, height: number, colour: string, more = ''): string {
  return `drawbox=x=${x}:y=${y}:w=${width}:h=${height}:color=${colour}:t=fill${more}`;
}

function bars(): string[] {
  const left = 72;
  const width = 1136;
  const boxes = BAR_COLOURS.map((colour, i) => {
    const x = left + Math.round((i * width) / BAR_COLOURS.length);
    return box(x, 464, Math.round(width / BAR_COLOURS.length), 112, colour);
  });
  for (let step = 0; step < GREY_STEPS; step++) {
    const level = Math.round((step * 255) / (GREY_STEPS - 1)).toString(16).padStart(2, '0');
    const x = left + Math.round((step * width) / GREY_STEPS);
    boxes.push(box(x, 576, Math.ceil(width / GREY_STEPS), 40, `0x${level}${level}${level}`));
  }
  return boxes;
}

function text(words: string, font: string, sizePx: number, colour: string, x: string, y: string): string {
  return `drawtext=font='${font}':text='${words}':fontsize=${sizePx}:fontcolor=${colour}:x=${x}:y=${y}`;
}

function words(): string[] {
  return [
    text('STARLING', 'DejaVu Sans\\:bold', 92, INK, '68', '72'),
    text('one timeline, computed everywhere', 'DejaVu Sans', 28, DIM_INK, '74', '176'),
    text('1280 x 720   25 fps   H.264   AAC 48 kHz', 'DejaVu Sans Mono', 20, DIM_INK, '74', '424'),
  ];
}

function timecode(): string[] {
  return [
    `drawtext=font='DejaVu Sans Mono\\:bold':timecode='00\\:00\\:00\\:00':rate=${FRAME_RATE}:fontsize=138:fontcolor=${INK}:x=66:y=262`,
  ];
}

/** A disc's worth of white for two frames at the start of each second, together with the beep. */
function flash(): string[] {
  return [box(1036, 112, 96, 96, 'white', `:enable='lt(mod(n,${FRAME_RATE}),2)'`)];
}

function frameStrip(): string[] {
  const { bits, leftPx, pitchPx, centreYPx, sizePx } = FRAME_STRIP;
  const boxes = [box(0, 652, 1280, 68, 'black')];
  for (let bit = 0; bit < bits; bit++) {
    const x = leftPx + bit * pitchPx - sizePx / 2;
    const y = centreYPx - sizePx / 2;
    boxes.push(
      `drawbox=x=${x - 2}:y=${y - 2}:w=${sizePx + 4}:h=${sizePx + 4}:color=0x2a3350:t=2`,
      box(x, y, sizePx, sizePx, 'white', `:enable='gt(bitand(n,${2 ** bit}),0)'`),
    );
  }
  return boxes;
}

/**
 * A beep of 1 kHz at the start of each second over four soft chords. All of it is silent at the ends
 * of the 32 s, so that the loop has no seam.
 */
function sound(): string {
  const beep = `0.3*sin(2*PI*1000*t)*min(1,min(mod(t,1)/0.004,max(0,(0.08-mod(t,1))/0.004)))`;
  const chords = [
    [220, 261.63, 329.63],
    [174.61, 220, 261.63],
    [196, 261.63, 329.63],
    [196, 246.94, 293.66],
  ];
  const pads = chords.map((notes, i) => {
    const tones = notes.map((hz) => `sin(2*PI*${hz}*t)`).join('+');
    return `between(t,${i * 8},${i * 8 + 8})*(${tones})`;
  });
  const swell = `0.035*pow(sin(PI*t/8),2)*(0.7+0.3*cos(PI*t))`;
  return `aevalsrc=exprs='${beep}+${swell}*(${pads.join('+')})':s=48000:d=${DURATION_SECONDS}[out1]`;
}
