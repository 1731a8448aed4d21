/** Takes nginx's messages over syslog on loopback, removes what must not be in a log, and passes them on. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Logger } from 'pino';

const MAX_LINES_PER_SECOND = 20;

export interface NginxLog {
  readonly port: number;
  close(): void;
}

/** Opens a port on loopback for nginx's `error_log syslog:`. */
export async function openNginxLog(logger: Logger): Promise<NginxLog> {
  const socket: Socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  socket.unref();
  let secondStartMs = 0;
  let lines = 0;
  let dropped = 0;
  socket.on('message', (bytes) => {
    const nowMs = performance.now();
    if (nowMs - secondStartMs >= 1000) {
      if (dropped > 0) logger.warn({ dropped }, 'nginx said more than is written here');
      secondStartMs = nowMs;
      lines = 0;
      dropped = 0;
    }
    if (++lines > MAX_LINES_PER_SECOND) {
      dropped++;
      return;
    }
    const { isSerious, text } = readMessage(bytes.toString('utf8'));
    logger[isSerious ? 'error' : 'warn']({ nginx: text }, 'nginx');
  });
  socket.on('error', (error) => logger.error({ err: error }, "nginx's messages cannot be taken"));
  return { port: socket.address().port, close: () => socket.close() };
}

/**
 * `<PRI>time nginx: 2026/11/22 10:00:00 [error] 1#1: *7 what, client: ..., request: "GET /x?token=...", ...`.
 * An `error` of nginx's is mostly a client's or a frontend's; from `crit` on it is nginx's own.
 */
export function readMessage(message: string): { isSerious: boolean; text: string } {
  const [, level = 'error', said = message] = /\[(\w+)\] \d+#\d+: (.*)$/s.exec(message) ?? [];
  return { isSerious: ['crit', 'alert', 'emerg'].includes(level), text: withoutSecrets(said.trim()) };
}

/** Queries hold tokens; the folder of a segment is what keeps a private channel private. */
function withoutSecrets(text: string): string {
  return text
    .replace(/\?[^\s",]*/g, '?...')
    .replace(/(\/live\/[^/\s"?]+\/[^/\s"?]+\/)[^/\s"?]+(?=\/)/g, '$1*');
}
