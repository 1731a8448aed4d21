/** Which code an input reached, as V8 counts it: the feedback that needs no native tool. */
import { type Profiler, Session } from 'node:inspector';

export class Coverage {
  readonly #session = new Session();
  readonly #isOurs: (url: string) => boolean;
  /** By script: 1 at each character that was ever reached. */
  readonly #reached = new Map<string, Uint8Array>();

  /** @param isOurs says of a script's URL whether it counts */
  constructor(isOurs: (url: string) => boolean) {
    this.#isOurs = isOurs;
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** Forgets what ran since the last call. */
  reset(): void {
    this.#session.post('Profiler.takePreciseCoverage');
  }

  /**
   * Says whether what ran since the last call reached code that was never reached before.
   * @param remembers the code counts as reached from now on
   */
  takeNew(remembers: boolean): boolean {
    let isNew = false;
    this.#session.post('Profiler.takePreciseCoverage', (_error, answer) => {
      for (const script of answer?.result ?? []) {
        if (this.#isOurs(script.url) && this.#merge(script, remembers)) isNew = true;
      }
    });
    return isNew;
  }

  close(): void {
    this.#session.disconnect();
  }

  #merge(script: Profiler.ScriptCoverage, remembers: boolean): boolean {
    let reached = this.#reached.get(script.url);
    const sizes = script.functions.map(({ ranges }) => ranges[0]?.endOffset ?? 0);
    const size = sizes.reduce((a, b) => Math.max(a, b), 0);
    if (reached === undefined || reached.length < size) {
      const grown = new Uint8Array(size);
      grown.set(reached ?? []);
      reached = grown;
      this.#reached.set(script.url, reached);
    }
    let isNew = false;
    for (const { ranges } of script.functions) {
      const [whole, ...blocks] = ranges;
      if (whole === undefined || whole.count === 0) continue;
      // Blocks lie within the blocks before them and overrule them.
      const counts = new Uint8Array(whole.endOffset - whole.startOffset).fill(1);
      for (const { startOffset, endOffset, count } of blocks) {
        counts.fill(count > 0 ? 1 : 0, startOffset - whole.startOffset, endOffset - whole.startOffset);
      }
      for (let i = 0; i < counts.length; i++) {
        if (counts[i] === 0 || reached[whole.startOffset + i] === 1) continue;
        isNew = true;
        if (!remembers) return true;
        reached[whole.startOffset + i] = 1;
      }
    }
    return isNew;
  }
}
