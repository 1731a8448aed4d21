/** Opening hours as text, as expressions of EventBridge Scheduler, and as an answer to "is it open?". */
import { Temporal } from 'temporal-polyfill';
import { describe, expect, it } from 'vitest';
import {
  checkPeriods,
  cronOf,
  describePeriod,
  isOpenAt,
  makePeriod,
  parseUntil,
  periodFromTag,
  periodToTag,
} from '../../src/operate/hours.ts';

const office = makePeriod('office', 'mon-fri', '09:00', '17:00', 'Europe/Dublin');
const night = makePeriod('night', 'sat,sun', '22:30', '02:00', 'Europe/Dublin');

describe('opening hours', () => {
  it('survive being a tag, whose values have neither commas nor braces', () => {
    for (const period of [office, night]) {
      const tag = periodToTag(period);
      expect(tag).toMatch(/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,256}$/u);
      expect(periodFromTag(period.name, tag)).toEqual(period);
    }
    expect(describePeriod(office)).toBe('mon-fri 09:00-17:00 Europe/Dublin');
    expect(describePeriod(night)).toBe('sat,sun 22:30-02:00 Europe/Dublin');
  });

  it.each([
    [office, 'open', 0, 'cron(0 9 ? * MON,TUE,WED,THU,FRI *)'],
    [office, 'open', 3, 'cron(3 9 ? * MON,TUE,WED,THU,FRI *)'],
    [office, 'close', 0, 'cron(0 17 ? * MON,TUE,WED,THU,FRI *)'],
    [night, 'open', 0, 'cron(30 22 ? * SAT,SUN *)'],
    // On the day after, Monday being the one after Sunday.
    [night, 'close', 2, 'cron(2 2 ? * SUN,MON *)'],
  ] as const)('%o %s after %i minutes is %s', (period, edge, delay, cron) => {
    expect(cronOf(period, edge, delay)).toBe(cron);
  });

  it.each([
    // 2026-10-25 is the end of summer time: 09:00 in Dublin is 08:00 UTC before it and 09:00 after.
    ['2026-10-23T07:59:00Z', false],
    ['2026-10-23T08:00:00Z', true],
    ['2026-10-26T08:59:00Z', false],
    ['2026-10-26T09:00:00Z', true],
    ['2026-10-26T17:00:00Z', false],
    // The night from Saturday to Sunday, and from Sunday to Monday, across the end of the week.
    ['2026-11-07T22:29:00Z', false],
    ['2026-11-08T01:59:00Z', true],
    ['2026-11-09T01:59:00Z', true],
    ['2026-11-09T02:00:00Z', false],
  ])('at %s: open is %s', (at, isOpen) => {
    expect(isOpenAt([office, night], Temporal.Instant.from(at))).toBe(isOpen);
  });

  it.each([
    ['mon-fry', '09:00', '17:00', 'UTC', /"mon-fry" are not days/],
    ['mon', '9', '17:00', 'UTC', /"9" is not a time of day/],
    ['mon', '09:00', '24:00', 'UTC', /"24:00" is not a time of day/],
    ['mon', '09:00', '17:00', 'Europe/Dublni', /"Europe\/Dublni" is not a time zone/],
    ['mon', '09:00', '17:00', '+01:00', /Name the time zone/],
    ['mon', '09:00', '09:20', 'UTC', /at least 30 minutes: hours lasts 20/],
    ['daily', '09:00', '09:00', 'UTC', /hours and hours are 0 apart/],
    ['mon,tue', '09:00', '08:45', 'UTC', /hours and hours are 15 apart/],
  ])('%s %s-%s %s is refused', (days, from, to, zone, message) => {
    expect(() => makePeriod('hours', days, from, to, zone)).toThrow(message);
  });

  it('do not overlap, and are in one zone', () => {
    checkPeriods([office, night]);
    const lunch = makePeriod('lunch', 'wed', '12:00', '13:00', 'Europe/Dublin');
    expect(() => checkPeriods([office, lunch])).toThrow('office and lunch are one in the other');
    const elsewhere = makePeriod('elsewhere', 'sat', '12:00', '13:00', 'UTC');
    expect(() => checkPeriods([office, elsewhere])).toThrow('in one time zone, not in Europe/Dublin and UTC');
  });

  it.each([
    ['22:00', '2026-11-30T22:00:00Z'],
    ['09:00', '2026-12-01T09:00:00Z'],
    ['2026-12-24T22:00', '2026-12-24T22:00:00Z'],
    ['2027-07-01T09:00', '2027-07-01T08:00:00Z'],
    ['2026-12-24T22:00+01:00', '2026-12-24T21:00:00Z'],
  ])('until %s is %s', (text, instant) => {
    const now = Temporal.Instant.from('2026-11-30T12:00:00Z');
    expect(parseUntil(text, 'Europe/Dublin', now).toString()).toBe(instant);
  });

  it.each(['yesterday', '25:00', '2026-11-29T12:00', '12:03'])('until %s is refused', (text) => {
    const now = Temporal.Instant.from('2026-11-30T12:00:00Z');
    expect(() => parseUntil(text, 'Europe/Dublin', now)).toThrow(/is not a time|at least five minutes/);
  });
});
