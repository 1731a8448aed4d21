/** The machine's monotonic clock in milliseconds: the same in all processes on it. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
