/** The `starling` command: the process around {@link run}. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { letHeapDouble } from './heap.ts';
import { run } from './run.ts';

letHeapDouble();

// A reader such as `head` may close the pipe early.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

// A supervisor that is gone takes its processes with it.
process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
process.channel?.unref();

process.exitCode = await run(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  readStdin: () => text(process.stdin),
  async readLine(prompt) {
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    // Where standard input ends without a line, the question would wait for ever.
    const ended = new Promise<string>((resolve) => lines.once('close', () => resolve('')));
    try {
      return await Promise.race([lines.question(prompt), ended]);
    } finally {
      lines.close();
    }
  },
  async readSecret(prompt) {
    if (!process.stdin.isTTY) return (await text(process.stdin)).replace(/\r?\n$/, '');
    process.stderr.write(prompt);
    // The terminal leaves the echo to readline, which writes to nowhere.
    const output = new Writable({ write: (_chunk, _encoding, done) => done() });
    const lines = createInterface({ input: process.stdin, output, terminal: true });
    try {
      return await lines.question('');
    } finally {
      lines.close();
      process.stderr.write('\n');
    }
  },
  onInterrupt(listener) {
    process.once('SIGINT', listener);
    return () => process.off('SIGINT', listener);
  },
});
