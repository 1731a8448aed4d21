/**
 * The least that a server in Node can do: writes the same bytes to every connection, all of them every
 * so many milliseconds. See floor.c.
 */
import { readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';

/** Never returns. @param args PORT FILE INTERVAL_MS */
export function serveFloor([port, path = '', intervalMs]: readonly string[]): void {
  const bytes = readFileSync(path);
  const viewers = new Set<Socket>();
  createServer((socket) => {
    viewers.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => viewers.delete(socket));
    socket.resume();
  }).listen(Number(port), '127.0.0.1', 1024);
  setInterval(() => {
    for (const viewer of viewers) viewer.write(bytes);
  }, Number(intervalMs));
}
