/** The same deployment, paid for in other ways. */
import type { Plan } from '@starling/model/topology/plan';
import { type EstimateOptions, estimate } from './estimate.ts';
import type { Usage } from './viewers.ts';

export interface Scenario {
  readonly name: string;
  readonly monthlyUsd: number;
  /** Something to know before it is taken for granted. */
  readonly note: string;
}

/** @param usage of the viewers, where there is a model of them */
export function scenariosOf(plan: Plan, usage: Usage | undefined): Scenario[] {
  const price = (name: string, options: EstimateOptions, note: string): Scenario => {
    const { monthlyTotalUsd, mediaMonthlyUsd } = estimate(plan, {
      ...(usage === undefined ? {} : { usage }),
      ...options,
    });
    return { name, monthlyUsd: monthlyTotalUsd + mediaMonthlyUsd, note };
  };
  return [
    price('around the clock', {}, ''),
    price(
      'paused',
      { isPaused: true },
      'RDS starts again by itself after 7 days; disks, addresses and load balancers stay.',
    ),
    price(
      '8 h x 5 d',
      { runningShare: 40 / 168 },
      'A schedule stops and starts it; viewers in the other hours find nothing.',
    ),
    price('8 h x 7 d', { runningShare: 56 / 168 }, ''),
    price(
      'reserved, 1 year',
      { term: 'reserved-1-year' },
      'Paid whether it runs or not; worth it from about 60 % of the hours.',
    ),
    price(
      'spot',
      { term: 'spot' },
      'Machines may end with two minutes of warning; databases cannot be spot.',
    ),
  ];
}
