/** How results look: tables for people, JSON for programs, a bar for what takes long. */
import type { TextOutput } from './io.ts';

/** One object per call, as a document of its own. */
export function printJson(output: TextOutput, value: unknown): void {
  output.write(`${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Columns as wide as their widest cell.
 * @param emptyText in place of a table without rows
 */
export function printTable(
  output: TextOutput,
  header: readonly string[],
  rows: readonly (readonly string[])[],
  emptyText: string,
): void {
  if (rows.length === 0) {
    output.write(`${emptyText}\n`);
    return;
  }
  const lines = [header, ...rows].map((cells) => cells.map(onOneLine));
  const widths = header.map((_, column) => Math.max(...lines.map((cells) => cells[column]?.length ?? 0)));
  for (const cells of lines) {
    output.write(
      `${cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    );
  }
}

/** Seconds as `1:02:03` or `2:03`. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, '0'))).join(':');
}

/** Bytes in the units of the SI, with three digits. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}

/** A bar that is drawn over itself, on a terminal only. */
export class ProgressBar {
  readonly #output: TextOutput;
  #isDrawn = false;

  constructor(output: TextOutput) {
    this.#output = output;
  }

  /** @param fraction 0..1 */
  draw(label: string, fraction: number): void {
    if (this.#output.isTTY !== true) return;
    const width = 30;
    const full = Math.round(fraction * width);
    const percent = String(Math.floor(fraction * 100)).padStart(3);
    const line = `[${'#'.repeat(full)}${'-'.repeat(width - full)}] ${percent} %  ${onOneLine(label)}`;
    this.#output.write(`\r\u001b[K${line.slice(0, (this.#output.columns ?? 80) - 1)}`);
    this.#isDrawn = true;
  }

  /** Makes room for a line of text. */
  clear(): void {
    if (this.#isDrawn) this.#output.write('\r\u001b[K');
    this.#isDrawn = false;
  }
}

/** Names come from files, and may hold what would move the cursor. */
function onOneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ');
}

/** Reads `a,b, c`. */
export function splitList(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** The part of a command's help that shows how it is used. */
export function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}\n`;
}
