/** The `starling` command: the process around {@link run}. */
import { setFlagsFromString } from 'node:v8';
import { run } from './run.ts';

// A channel's media passes through memory that V8 counts as its heap, and by default it then looks through
// all that lives every ten seconds, a fifth of an idle channel's cost. This lets the heap double first.
setFlagsFromString('--heap-growing-percent=100');

// A reader such as `head` may close the pipe early.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

process.exitCode = await run(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  onInterrupt(listener) {
    process.once('SIGINT', listener);
    return () => process.off('SIGINT', listener);
  },
});
