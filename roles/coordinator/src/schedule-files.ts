/**
 * Schedules as files that people write: YAML, and CSV for spreadsheets (docs/formats/schedule.md). What
 * comes out of here is not checked yet.
 */
import { Schedule, ScheduleProgramme } from '@starling/model/schedule-definition';
import Papa from 'papaparse';
import { parseDocument, stringify } from 'yaml';
import { ApiProblem } from './problem.ts';

/** Takes a file apart. @throws ApiProblem SCHEDULE_INVALID that names the line */
export function parseYaml(text: string): unknown {
  // Aliases could make a small file into a huge one.
  const document = parseDocument(text, { prettyErrors: true });
  const [error] = document.errors;
  if (error)
    throw new ApiProblem('SCHEDULE_INVALID', `The YAML cannot be read: ${error.message.split('\n')[0]}`);
  try {
    return document.toJS({ maxAliasCount: 0 });
  } catch {
    throw new ApiProblem('SCHEDULE_INVALID', 'The YAML has an alias (*). Write out what it stands for.');
  }
}

export function toYaml(schedule: Schedule): string {
  const { filler, programmes } = schedule;
  const ordered = {
    ...inOrder(schedule, Schedule.properties),
    ...(filler && { filler: inOrder(filler, { items: 0, order: 0 }) }),
    programmes: programmes.map((programme) => inOrder(programme, ScheduleProgramme.properties)),
  };
  return stringify(ordered, { lineWidth: 100 });
}

/** The database forgets the order of the fields. */
function inOrder(value: object, fields: object): object {
  const order = Object.keys(fields);
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)));
}

/** The columns of CSV, in order. The first says what a row is about. */
const columns = [
  'kind',
  'start',
  'repeat',
  'days',
  'until',
  'items',
  'order',
  'loop',
  'duration',
  'priority',
  'title',
  'description',
  'category',
  'timeZone',
  'seed',
] as const;
type Column = (typeof columns)[number];
type Row = Partial<Record<Column, string>>;

const texts: ReadonlySet<Column> = new Set(['items', 'title', 'description', 'category']);

/** Between the items of a row, and between its days. */
const SEPARATOR = ';';

export function toCsv(schedule: Schedule): string {
  const { timeZone, seed, filler, programmes } = schedule;
  const rows: Row[] = [{ kind: 'schedule', timeZone, ...(seed !== undefined && { seed: String(seed) }) }];
  if (filler)
    rows.push({ kind: 'filler', items: joined(filler.items), ...(filler.order && { order: filler.order }) });
  for (const { items, days, loop, priority, ...rest } of programmes) {
    rows.push({
      kind: 'programme',
      ...rest,
      items: joined(items),
      ...(days && { days: joined(days) }),
      ...(loop !== undefined && { loop: String(loop) }),
      ...(priority !== undefined && { priority: String(priority) }),
    });
  }
  const text = Papa.unparse({
    fields: [...columns],
    data: rows.map((row) => columns.map((name) => row[name] ?? '')),
  });
  return `${text}\r\n`;
}

/** Takes a file apart (RFC 4180). @throws ApiProblem SCHEDULE_INVALID that names the row */
export function parseCsv(text: string): unknown {
  const { data, errors } = Papa.parse<string[]>(text.replace(/^\uFEFF/, ''), { skipEmptyLines: 'greedy' });
  const [error] = errors.filter(({ type }) => type === 'Quotes');
  if (error) throw invalidRow((error.row ?? 0) + 1, `the quotes do not match`);
  const [header = [], ...body] = data;
  for (const name of header) {
    if (!isColumn(name))
      throw invalidRow(1, `there is no column "${name}". The columns are: ${columns.join(', ')}`);
  }
  const schedule: Record<string, unknown> & { programmes: unknown[] } = { programmes: [] };
  for (const [i, cells] of body.entries()) {
    const number = i + 2;
    if (cells.length > header.length) throw invalidRow(number, `it has more cells than the first row`);
    const row: Row = {};
    for (const [column, name] of header.entries())
      if (isColumn(name)) row[name] = cleaned(name, cells[column] ?? '');
    const { kind = 'programme', timeZone = '', seed = '', ...rest } = row;
    if (kind === 'schedule') {
      if (timeZone !== '') schedule.timeZone = timeZone;
      if (seed !== '') schedule.seed = numberOr(seed);
    } else if (kind === 'filler') {
      schedule.filler = valuesOf(rest);
    } else if (kind === 'programme' || kind === '') {
      schedule.programmes.push(valuesOf(rest));
    } else {
      throw invalidRow(number, `"${kind}" is no kind of row. Write schedule, filler or programme`);
    }
  }
  return schedule;
}

/** Spaces at the ends belong to texts and names alone. */
function cleaned(column: Column, cell: string): string {
  return texts.has(column) ? cell : cell.trim();
}

function valuesOf({
  items = '',
  days = '',
  loop = '',
  priority = '',
  ...rest
}: Row): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [name, text] of Object.entries(rest)) if (text !== '') values[name] = text;
  if (items !== '') values.items = split(items);
  if (days !== '') values.days = split(days);
  if (loop !== '') values.loop = loop === 'true' ? true : loop === 'false' ? false : loop;
  if (priority !== '') values.priority = numberOr(priority);
  return values;
}

/** Text that is no number stays, so that the check names it. */
function numberOr(text: string): number | string {
  return Number.isNaN(Number(text)) ? text : Number(text);
}

/** A backslash makes what follows part of a name: a separator, or a space at its ends. */
function joined(items: readonly string[]): string {
  return items.map((item) => item.replace(/^\s|\s$|[\\;]/g, '\\$&')).join(SEPARATOR);
}

function split(text: string): string[] {
  const items = text.match(/(?:\\[\s\S]|[^\\;])+/g) ?? [];
  return items
    .map((item) => item.replace(/^\s+|(?<!\\)\s+$/g, '').replace(/\\([\s\S])/g, '$1'))
    .filter((item) => item !== '');
}

function isColumn(name: string): name is Column {
  return columns.some((column) => column === name);
}

function invalidRow(number: number, what: string): ApiProblem {
  return new ApiProblem('SCHEDULE_INVALID', `Row ${number} of the CSV: ${what}.`);
}
