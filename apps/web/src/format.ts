/** Numbers and times in the words that the pages show. */

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const clockWithSeconds = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
});

const day = new Intl.DateTimeFormat('en-GB', { weekday: 'short', day: 'numeric', month: 'short' });

/** Programmes shorter than this are told apart only by their seconds. */
const SHORT_PROGRAMME_MS = 5 * 60_000;

export interface Programme {
  /** ISO 8601. */
  readonly startsAt: string;
  /** ISO 8601. */
  readonly endsAt: string;
}

/** The viewer's local time, to the minute. */
export function formatClock(timeMs: number): string {
  return clock.format(new Date(timeMs));
}

/** The viewer's local time, to the second. */
export function formatClockWithSeconds(timeMs: number): string {
  return clockWithSeconds.format(new Date(timeMs));
}

/** A distance from live as a clock: "0:07", "12:30", "1:02:03". */
export function formatBehind(seconds: number): string {
  const total = Math.round(seconds);
  const [hours, minutes] = [Math.floor(total / 3600), Math.floor(total / 60) % 60];
  const twoDigits = (value: number) => String(value).padStart(2, '0');
  const rest = twoDigits(total % 60);
  return hours === 0 ? `${minutes}:${rest}` : `${hours}:${twoDigits(minutes)}:${rest}`;
}

/** The day where the viewer is: "Thu 24 Dec". */
export function formatDay(timeMs: number): string {
  return day.format(new Date(timeMs)).replace(',', '');
}

/** The start and the end of a programme in local time, with seconds where it is a short one. */
export function formatProgrammeTimes(programme: Programme): string {
  const format = durationMs(programme) < SHORT_PROGRAMME_MS ? clockWithSeconds : clock;
  return `${format.format(new Date(programme.startsAt))}–${format.format(new Date(programme.endsAt))}`;
}

/** The start of the programme that follows `now`, as exactly as the times of `now` are shown. */
export function formatNextStart(startsAt: string, now: Programme | null): string {
  const format = now !== null && durationMs(now) < SHORT_PROGRAMME_MS ? clockWithSeconds : clock;
  return format.format(new Date(startsAt));
}

/** How much of a programme has gone by, 0..1. */
export function programmeProgress(programme: Programme, nowMs: number): number {
  const lengthMs = durationMs(programme);
  if (!(lengthMs > 0)) return 0;
  return Math.min(1, Math.max(0, (nowMs - Date.parse(programme.startsAt)) / lengthMs));
}

/** "12 min left", "40 s left"; empty once the programme is over. */
export function formatTimeLeft(programme: Programme, nowMs: number): string {
  const leftMs = Date.parse(programme.endsAt) - nowMs;
  if (!(leftMs > 0)) return '';
  return `${formatDuration(leftMs)} left`;
}

/** A length of time in its largest useful unit: "40 s", "12 min", "1 h 5 min". */
export function formatDuration(lengthMs: number): string {
  const totalSeconds = Math.ceil(lengthMs / 1000);
  if (totalSeconds < 60) return `${totalSeconds} s`;
  const totalMinutes = Math.ceil(totalSeconds / 60);
  if (totalMinutes < 60) return `${totalMinutes} min`;
  const hours = Math.floor(totalMinutes / 60);
  const minutes = totalMinutes - hours * 60;
  return minutes === 0 ? `${hours} h` : `${hours} h ${minutes} min`;
}

/** "2.3 s"; a dash where the value is not known. */
export function formatSeconds(seconds: number | undefined): string {
  return seconds === undefined ? '–' : `${seconds.toFixed(1)} s`;
}

/** "4.2 Mb/s", "640 kb/s"; a dash where the value is not known. */
export function formatBitrate(bitrateBps: number | undefined): string {
  if (bitrateBps === undefined) return '–';
  if (bitrateBps >= 999_500) return `${(bitrateBps / 1_000_000).toFixed(1)} Mb/s`;
  return `${Math.round(bitrateBps / 1000)} kb/s`;
}

/** "25 fps", "29.97 fps"; a dash where the value is not known. */
export function formatFrameRate(framesPerSecond: number | undefined): string {
  return framesPerSecond === undefined ? '–' : `${Number(framesPerSecond.toFixed(2))} fps`;
}

function durationMs(programme: Programme): number {
  return Date.parse(programme.endsAt) - Date.parse(programme.startsAt);
}

/**
 * Where a programme lies in a span of time, in hundredths of it.
 * @returns undefined when it lies outside
 */
export function placeInSpan(
  programme: Programme,
  span: { readonly fromMs: number; readonly untilMs: number },
): { readonly startPercent: number; readonly widthPercent: number } | undefined {
  const { fromMs, untilMs } = span;
  const startMs = Math.max(fromMs, Date.parse(programme.startsAt));
  const endMs = Math.min(untilMs, Date.parse(programme.endsAt));
  if (!(endMs > startMs)) return undefined;
  const percent = (timeMs: number) => (timeMs * 100) / (untilMs - fromMs);
  return { startPercent: percent(startMs - fromMs), widthPercent: percent(endMs - startMs) };
}
