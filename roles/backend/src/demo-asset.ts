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
export async function importTestCard(
  library: Pick<Library, 'importFrom'>,
  options: ImportOptions,
): Promise<AssetFacts> {
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
/** Repeats the first picture: what stands still is drawn once. The time base is one frame. */
const FREEZE = 'loop=loop=-1:size=1:start=0,setpts=N';

function picture(hasText: boolean): string {
  const still = [
    `color=c=black:s=1280x720:r=${FRAME_RATE}:d=0.04,format=gbrp`,
    `geq=r='${stillPicture(8, 20, 2)}':g='${stillPicture(12, 30, 4)}':b='${stillPicture(28, 62, 1)}',format=rgb24`,
    ...(hasText ? words() : []),
    'scale=out_color_matrix=bt709:out_range=tv,format=yuv420p',
    FREEZE,
  ];
  const { x, y } = ORBIT;
  return [
    `${still.join(',')}[still]`,
    `${disc('0xffd27a', 9)}[planet]`,
    `${disc('0x8fd3ff', 5)}[moon]`,
    `${disc('white', 52)}[flash]`,
    `[still][flash]overlay=x=${x - 52}:y=${y - 52}:enable='lt(mod(n,${FRAME_RATE}),2)'[a]`,
    `[a][planet]overlay=x='${x}-9+${ORBIT.planetPx}*sin(2*PI*n/200)':y='${y}-9-${ORBIT.planetPx}*cos(2*PI*n/200)'[b]`,
    `[b][moon]overlay=x='${x}-5+${ORBIT.moonPx}*sin(2*PI*n/25)':y='${y}-5-${ORBIT.moonPx}*cos(2*PI*n/25)'[c]`,
    `[c]${[
      ...(hasText ? runningText() : []),
      ...frameStrip(),
      `trim=end_frame=${TEST_CARD_FRAME_COUNT}`,
      'setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709',
    ].join(',')}[out0]`,
  ].join(';');
}

/** A planet goes round in 8 s and its moon in 1 s; where they circle, a disc flashes with the beep. */
const ORBIT = { x: 1084, y: 168, planetPx: 104, moonPx: 74 } as const;

/** A disc that stands still, on a transparent square of twice its radius. */
function disc(colour: string, radiusPx: number): string {
  const sizePx = 2 * radiusPx;
  const alpha = `255*clip(${radiusPx}-hypot(X-${radiusPx - 0.5},Y-${radiusPx - 0.5}),0,1)`;
  return (
    `color=c=${colour}:s=${sizePx}x${sizePx}:r=${FRAME_RATE},format=yuva444p,` +
    `geq=lum='p(X,Y)':cb='p(X,Y)':cr='p(X,Y)':a='${alpha}',format=yuva420p,${FREEZE}`
  );
}

/** Colour bars in the order of falling luma (ITU-R BT.471), and a staircase of greys below. */
const BARS = { leftPx: 72, topPx: 464, widthPx: 1136, heightPx: 112, count: 8 } as const;
const GREYS = { topPx: BARS.topPx + BARS.heightPx, heightPx: 40, count: 11 } as const;

/**
 * One colour of the picture behind it all: a night sky that is darker to the bottom, with a star in
 * every 4000th point (a hash of its place), the orbits' rings, and the bars.
 * @param barBit the bit of a bar's number that says that the bar lacks this colour
 */
function stillPicture(bottom: number, top: number, barBit: number): string {
  const glow = `${bottom}+${top - bottom}*(1-Y/H)*(0.55+0.45*cos((X-W*0.38)/W*2))`;
  const hash = 'mod(abs(sin(X*12.9898+Y*78.233)*43758.5453),1)';
  const star = `gt(${hash},0.99972)*(60+160*mod(abs(sin(X*3.1+Y*7.7)*917.3),1))`;
  const distance = `hypot(X-${ORBIT.x},Y-${ORBIT.y})`;
  const rings = [ORBIT.planetPx, ORBIT.moonPx].map((px) => `30*clip(1.5-abs(${distance}-${px}),0,1)`);
  const sky = `min(255,${glow}+${star}+${rings.join('+')})`;
  const place = `(X-${BARS.leftPx})/${BARS.widthPx}`;
  const bar = `191*not(bitand(floor(${place}*${BARS.count}),${barBit}))`;
  const grey = `255*floor(${place}*${GREYS.count})/${GREYS.count - 1}`;
  const isWithin = (band: { topPx: number; heightPx: number }) =>
    `between(X,${BARS.leftPx},${BARS.leftPx + BARS.widthPx - 1})*between(Y,${band.topPx},${band.topPx + band.heightPx - 1})`;
  return `if(${isWithin(BARS)},${bar},if(${isWithin(GREYS)},${grey},${sky}))`;
}

function box(x: number, y: number, width: number, height: number, colour: string, more = ''): string {
  return `drawbox=x=${x}:y=${y}:w=${width}:h=${height}:color=${colour}:t=fill${more}`;
}

/** A border in the colour of the letters makes them bold: drawtext finds no bold fonts by name. */
function text(
  words: string,
  font: string,
  sizePx: number,
  colour: string,
  x: number,
  y: number,
  boldPx = 0,
): string {
  const bold = boldPx > 0 ? `:borderw=${boldPx}:bordercolor=${colour}` : '';
  return `drawtext=font='${font}':text='${words}':fontsize=${sizePx}:fontcolor=${colour}:x=${x}:y=${y}${bold}`;
}

function words(): string[] {
  return [
    text('STARLING', 'DejaVu Sans', 92, INK, 68, 68, 2),
    text('one timeline, computed everywhere', 'DejaVu Sans', 28, DIM_INK, 74, 174),
    text('1280 x 720   25 fps   H.264   AAC 48 kHz', 'DejaVu Sans Mono', 20, DIM_INK, 74, 418),
    text('frame', 'DejaVu Sans Mono', 20, DIM_INK, 1016, 418),
  ];
}

function runningText(): string[] {
  const timecode = `timecode='00\\:00\\:00\\:00':rate=${FRAME_RATE}`;
  return [
    `drawtext=font='DejaVu Sans Mono':${timecode}:fontsize=138:fontcolor=${INK}:x=66:y=256:borderw=2:bordercolor=${INK}`,
    text('%{eif\\:n\\:d\\:3}', 'DejaVu Sans Mono', 44, INK, 1098, 398, 1),
  ];
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
