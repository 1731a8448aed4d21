/** The servers under test, each a process of its own on free ports. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultFanOutLimits } from '@starling/frontend/fan-out';
import { freePort } from '../free-port.ts';
import { makeStamp } from './stamp.ts';

export const STREAM_PATH = '/live/bench';

export interface StreamingServer {
  readonly name: string;
  readonly version: string;
  readonly pid: number;
  /** Undefined where it makes its own bytes. */
  readonly publishUrl: string | undefined;
  /** Port and path of each protocol that it has. */
  readonly ways: Readonly<
    Partial<Record<'http-flv' | 'rtmp' | 'hls', { readonly port: number; readonly path: string }>>
  >;
  stop(): Promise<void>;
}

/** Waits until somebody listens on the port. */
async function listening(port: number, child: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 100 && child.exitCode === null; attempt++) {
    const socket = connect(port, '127.0.0.1');
    const isOpen = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isOpen) return;
    await sleep(50);
  }
  throw new Error(`${child.spawnargs.join(' ')} does not listen on port ${port}`);
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/**
 * One frontend process, as a fleet runs it.
 * @param name tells builds apart
 */
export async function startStarling(
  name: string,
  program: string,
  scratch: string,
): Promise<StreamingServer> {
  const folder = join(scratch, name);
  mkdirSync(folder, { recursive: true });
  const token = randomBytes(16).toString('hex');
  writeFileSync(join(folder, 'token'), token);
  const free = { host: '127.0.0.1', port: 0 };
  const config = join(folder, 'starling.yaml');
  writeFileSync(config, JSON.stringify({ frontend: { http: free, rtmp: free, publishTokenFile: 'token' } }));
  const child = spawn(process.execPath, [program, 'frontend', '--config', config], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [says] = await once(child.stdout, 'data');
  const [, http, rtmp] = /HTTP on port (\d+), RTMP on port (\d+)/.exec(String(says)) ?? [];
  return {
    name,
    version: `Node ${process.versions.node}`,
    pid: child.pid ?? 0,
    publishUrl: `rtmp://127.0.0.1:${rtmp}${STREAM_PATH}?token=${token}`,
    ways: {
      'http-flv': { port: Number(http), path: `${STREAM_PATH}.flv` },
      rtmp: { port: Number(rtmp), path: STREAM_PATH },
      hls: { port: Number(http), path: `${STREAM_PATH}/index.m3u8` },
    },
    stop: () => stop(child),
  };
}

/** nginx with its RTMP module, one worker. */
export async function startNginxRtmp(scratch: string): Promise<StreamingServer> {
  const port = await freePort();
  const child = await startNginx(
    join(scratch, 'nginx-rtmp'),
    port,
    `rtmp {
       access_log off;
       server { listen 127.0.0.1:${port}; chunk_size 4096; application live { live on; } }
     }`,
    'load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;',
  );
  const status = execFileSync('dpkg', ['-s', 'libnginx-mod-rtmp'], { encoding: 'utf8' });
  return {
    name: 'nginx-rtmp',
    version: /^Version: (?:\d+:)?([\d.]+)/m.exec(status)?.[1] ?? 'unknown',
    pid: child.pid ?? 0,
    publishUrl: `rtmp://127.0.0.1:${port}${STREAM_PATH}`,
    ways: { rtmp: { port, path: STREAM_PATH } },
    stop: () => stop(child),
  };
}

/** How the floor's servers write: as the frontend does. */
const FLOOR_INTERVAL_MS = defaultFanOutLimits.batchMs;

/**
 * Servers that do nothing but write: one in Node, one in C where there is a compiler.
 * @param bitrateBps what each viewer gets
 */
export async function startFloors(
  benchProgram: string,
  scratch: string,
  bitrateBps: number,
): Promise<StreamingServer[]> {
  const batch = join(scratch, 'batch');
  const bytes = Buffer.alloc((bitrateBps / 8) * (FLOOR_INTERVAL_MS / 1000));
  makeStamp({ isRandomAccess: true, sentAtMs: 0 }).copy(bytes); // viewers take it for a picture
  writeFileSync(batch, bytes);
  const start = async (name: string, version: string, command: string, ...args: string[]) => {
    const port = await freePort();
    const child = spawn(command, [...args, String(port), batch, String(FLOOR_INTERVAL_MS)], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    await listening(port, child);
    return {
      name,
      version,
      pid: child.pid ?? 0,
      publishUrl: undefined,
      ways: { 'http-flv': { port, path: '/' } },
      stop: () => stop(child),
    };
  };
  const floors = [
    await start('floor in Node', process.versions.node, process.execPath, benchProgram, 'floor'),
  ];
  const source = join(dirname(benchProgram), '..', 'tools', 'bench', 'floor.c');
  const program = join(scratch, 'floor');
  if (spawnSync('cc', ['-O2', '-o', program, source], { stdio: 'ignore' }).status === 0) {
    floors.push(await start('floor in C', '', program));
  }
  return floors;
}

export interface FileServer {
  readonly version: string;
  readonly pid: number;
  readonly port: number;
  /** Makes files available below `/`. */
  put(path: string, bytes: Uint8Array): void;
  stop(): Promise<void>;
}

/** nginx as a server of static files, one worker. */
export async function startNginxFiles(scratch: string): Promise<FileServer> {
  const folder = join(scratch, 'nginx-files');
  const files = join(folder, 'files');
  mkdirSync(files, { recursive: true });
  const port = await freePort();
  const child = await startNginx(
    folder,
    port,
    `http {
       client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
       uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
       access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
       types { video/mp4 m4s; application/vnd.apple.mpegurl m3u8; }
       server { listen 127.0.0.1:${port}; root ${files}; }
     }`,
  );
  return {
    version:
      /nginx\/([\d.]+)/.exec(execFileSync('sh', ['-c', '/usr/sbin/nginx -v 2>&1']).toString())?.[1] ??
      'unknown',
    pid: child.pid ?? 0,
    port,
    put(path, bytes) {
      mkdirSync(dirname(join(files, path)), { recursive: true });
      writeFileSync(join(files, path), bytes);
    },
    stop: () => stop(child),
  };
}

async function startNginx(folder: string, port: number, blocks: string, modules = ''): Promise<ChildProcess> {
  mkdirSync(folder, { recursive: true });
  const config = join(folder, 'nginx.conf');
  writeFileSync(
    config,
    `${modules}
     daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/nginx.log; worker_processes 1;
     events { worker_connections 8192; }
     ${blocks}`,
  );
  const child = spawn('/usr/sbin/nginx', ['-p', folder, '-c', config], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await listening(port, child);
  return child;
}

/** node-media-server with its defaults. */
export async function startNodeMediaServer(scratch: string): Promise<StreamingServer> {
  const folder = join(scratch, 'node-media-server');
  mkdirSync(folder, { recursive: true });
  const [http, rtmp] = [await freePort(), await freePort()];
  const config = join(folder, 'config.json');
  writeFileSync(
    config,
    JSON.stringify({
      bind: '127.0.0.1',
      store: { path: './data' },
      rtmp: { port: rtmp },
      http: { port: http },
      webadmin: { enable: false },
    }),
  );
  const root = dirname(createRequire(import.meta.url).resolve('node-media-server/package.json'));
  const child = spawn(process.execPath, [join(root, 'bin', 'app.js'), '--config', config], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await listening(rtmp, child);
  await listening(http, child);
  const { version }: { version: string } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return {
    name: 'node-media-server',
    version,
    pid: child.pid ?? 0,
    publishUrl: `rtmp://127.0.0.1:${rtmp}${STREAM_PATH}`,
    ways: {
      'http-flv': { port: http, path: `${STREAM_PATH}.flv` },
      rtmp: { port: rtmp, path: STREAM_PATH },
    },
    stop: () => stop(child),
  };
}
