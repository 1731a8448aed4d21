/** The process that a crowd lives in: takes a plan, then `begin` and `report`, until it is killed. */
import type { CrowdMessage, CrowdPlan, CrowdReport } from './crowd.ts';
import { FileFetchers } from './file-fetchers.ts';
import { HlsViewers } from './hls-viewers.ts';
import { ReloadWaiters } from './reload-waiters.ts';
import { StreamViewers } from './stream-viewers.ts';

interface RunningCrowd {
  /** Resolves when all are being served. */
  join(): Promise<void>;
  begin(): void;
  report(): CrowdReport;
}

function crowdOf(plan: CrowdPlan): RunningCrowd {
  switch (plan.kind) {
    case 'streams':
      return new StreamViewers(plan);
    case 'hls':
      return new HlsViewers(plan);
    case 'files':
      return new FileFetchers(plan);
    case 'reloads':
      return new ReloadWaiters(plan);
  }
}

/** Serves the parent process over IPC. */
export function serveCrowd(): void {
  const say = (message: CrowdMessage) => void process.send?.(message);
  const fail = (error: unknown) => say({ failure: error instanceof Error ? error.message : String(error) });
  process.on('disconnect', () => process.exit());
  process.on('unhandledRejection', fail);
  let crowd: RunningCrowd | undefined;
  process.on('message', (message: CrowdPlan | 'begin' | 'report') => {
    if (message === 'begin') {
      crowd?.begin();
    } else if (message === 'report') {
      if (crowd !== undefined) say({ report: crowd.report() });
    } else {
      crowd = crowdOf(message);
      crowd.join().then(() => say('ready'), fail);
    }
  });
}
