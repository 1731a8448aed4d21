import { MediaError } from '../src/error.ts';

/** The code of the MediaError that `run` throws; anything else that it throws is thrown on. */
export function errorCodeOf(run: () => unknown): string | undefined {
  try {
    run();
  } catch (error) {
    if (error instanceof MediaError) return error.code;
    throw error;
  }
  return undefined;
}
