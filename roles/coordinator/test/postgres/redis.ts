/** A Redis server of its own, from the system's package, on a free port of loopback. It keeps nothing on disk. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { freePort } from '../../../../tools/free-port.ts';

export interface RedisServer {
  readonly url: string;
  start(): Promise<void>;
  /** As a crash does. */
  stop(): Promise<void>;
  /** Connections stay open and nothing answers. */
  freeze(): void;
  thaw(): void;
}

export async function startRedis(): Promise<RedisServer> {
  const port = await freePort();
  let child: ChildProcess | undefined;
  const server: RedisServer = {
    url: `redis://:only-for-the-tests@127.0.0.1:${port}`,
    async start() {
      const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
      const started = spawn('redis-server', [...args, '--requirepass', 'only-for-the-tests'], {
        stdio: ['ignore', 'pipe', 'inherit'],
        cwd: '/tmp',
      });
      child = started;
      let text = '';
      for await (const chunk of started.stdout) {
        text += String(chunk);
        if (text.includes('Ready to accept connections')) break;
      }
    },
    async stop() {
      if (child === undefined) return;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
      child = undefined;
    },
    freeze: () => child?.kill('SIGSTOP'),
    thaw: () => child?.kill('SIGCONT'),
  };
  await server.start();
  return server;
}
