#!/usr/bin/env node
/**
 * Gets a fresh clone ready, then runs a command. Needs nothing but Node: it runs before
 * `npm install` has.
 *
 *   node tools/bootstrap.mjs <run|test|bench> -- COMMAND [ARG...]
 *
 * 1. npm packages, when `package-lock.json` changed since the last time;
 * 2. system programs that are missing, from Debian's packages when this is root or sudo asks for
 *    no password; otherwise it prints the command for the platform and exits 2;
 * 3. the build, when a source file changed;
 * 4. COMMAND, with our own `node_modules/.bin` first in the PATH. `--and` separates several.
 *
 * When all is in place it costs a few stat calls, so a second `npm start` is quick.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, delimiter as pathDelimiter } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** What each purpose needs: the program to look for, what it is for, and its package by platform. */
const programs = [
  {
    find: 'ffmpeg',
    why: 'imports media and draws the test card',
    for: ['run', 'test', 'bench'],
    debian: ['ffmpeg'],
    fedora: ['ffmpeg-free'],
    macos: ['ffmpeg'],
  },
  {
    find: 'file:/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf',
    why: "the test card's letters",
    for: ['run', 'test', 'bench'],
    debian: ['fonts-dejavu-core'],
  },
  {
    find: 'curl',
    why: 'asks as scripts do',
    for: ['test'],
    debian: ['curl', 'ca-certificates'],
    fedora: ['curl'],
    macos: ['curl'],
  },
  {
    find: 'chromium',
    why: 'plays the channel in a real browser',
    for: ['test'],
    debian: ['chromium'],
    fedora: ['chromium'],
    macos: ['chromium'],
  },
  {
    find: 'gst-launch-1.0',
    why: 'plays and publishes as a second implementation',
    for: ['test'],
    debian: [
      'gstreamer1.0-tools',
      'gstreamer1.0-plugins-base',
      'gstreamer1.0-plugins-good',
      'gstreamer1.0-plugins-bad',
      'gstreamer1.0-plugins-ugly',
      'gstreamer1.0-libav',
    ],
    fedora: [
      'gstreamer1-plugins-base-tools',
      'gstreamer1-plugins-good',
      'gstreamer1-plugins-bad-free',
      'gstreamer1-plugin-libav',
    ],
    macos: ['gstreamer'],
  },
  {
    find: 'file:/usr/share/doc/gir1.2-gst-rtsp-server-1.0/copyright',
    why: 'an RTSP camera',
    for: ['test'],
    debian: ['python3-gi', 'gir1.2-gst-rtsp-server-1.0'],
  },
  {
    find: 'cvlc',
    why: 'plays as a third implementation',
    for: ['test'],
    debian: ['vlc-bin', 'vlc-plugin-base'],
    fedora: ['vlc'],
    macos: ['vlc'],
  },
  {
    find: 'xmllint',
    why: 'checks the guide',
    for: ['test'],
    debian: ['libxml2-utils'],
    fedora: ['libxml2'],
    macos: ['libxml2'],
  },
  {
    find: 'hdhomerun_config',
    why: 'looks for us as for an HDHomeRun tuner',
    for: ['test'],
    debian: ['hdhomerun-config'],
    fedora: ['hdhomerun-devel'],
    macos: ['libhdhomerun'],
  },
  { find: 'mpv', why: 'plays as people do', for: ['test'], debian: ['mpv'], fedora: ['mpv'], macos: ['mpv'] },
  {
    find: 'streamlink',
    why: 'plays as people do',
    for: ['test'],
    debian: ['streamlink'],
    fedora: ['streamlink'],
    macos: ['streamlink'],
  },
  {
    find: 'file:/usr/bin/pg_ctlcluster',
    why: 'the database server of the tests',
    for: ['test', 'bench'],
    debian: ['postgresql'],
    fedora: ['postgresql-server'],
    macos: ['postgresql'],
  },
  {
    find: 'redis-server',
    why: 'what several coordinators share',
    for: ['test'],
    debian: ['redis-server'],
    fedora: ['redis'],
    macos: ['redis'],
  },
  {
    find: 'nginx',
    why: 'the balancer, and the peer that the benchmark compares with',
    for: ['test', 'bench'],
    debian: ['nginx', 'libnginx-mod-rtmp'],
    fedora: ['nginx'],
    macos: ['nginx'],
  },
  {
    find: 'file:/usr/lib/nginx/modules/ngx_stream_module.so',
    why: 'passes RTMP on in the balancer',
    for: ['test'],
    debian: ['libnginx-mod-stream'],
    fedora: ['nginx-mod-stream'],
  },
  {
    find: 'pebble',
    why: 'issues certificates as an authority does',
    for: ['test'],
    debian: ['pebble'],
  },
  {
    find: 'aws',
    why: 'asks Route 53 as the balancer does, for comparison',
    for: ['test'],
    debian: ['awscli'],
    fedora: ['awscli2'],
  },
  {
    find: 'testssl',
    why: "grades the balancer's TLS",
    for: ['test'],
    debian: ['testssl.sh'],
    fedora: ['testssl'],
    macos: ['testssl'],
  },
  {
    find: 'ansible-playbook',
    why: 'checks the inventory and the playbook',
    for: ['test'],
    debian: ['ansible-core'],
    fedora: ['ansible-core'],
    macos: ['ansible'],
  },
  {
    find: 'nft',
    why: "checks the hosts' packet filters",
    for: ['test'],
    debian: ['nftables'],
    fedora: ['nftables'],
  },
  {
    find: 'ssh-keygen',
    why: "makes the operator's keys",
    for: ['test'],
    debian: ['openssh-client'],
    fedora: ['openssh-clients'],
  },
  {
    // Whichever `aws` comes first in the PATH need not be this one, whose service descriptions the tests read.
    find: 'file:/usr/lib/python3/dist-packages/awscli/botocore/data/scheduler',
    why: 'asks AWS, or what plays it in the tests, as a second implementation',
    for: ['test'],
    debian: ['awscli'],
  },
]; // prettier-ignore

function findProgram(name) {
  if (name.startsWith('file:')) return process.platform !== 'linux' || existsSync(name.slice(5));
  for (const folder of [...(process.env.PATH ?? '').split(pathDelimiter), '/usr/sbin', '/usr/local/bin']) {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      // not in this folder
    }
  }
  return false;
}

function platform() {
  if (process.platform === 'darwin') return 'macos';
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  if (/^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(release)) return 'debian';
  if (/^ID(_LIKE)?=.*\b(fedora|rhel)\b/m.test(release)) return 'fedora';
  return 'other';
}

function say(text) {
  process.stderr.write(`starling: ${text}\n`);
}

function fail(text) {
  say(text);
  process.exit(2);
}

function runOrFail(command, args, whatFailed, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (result.status !== 0)
    fail(`${whatFailed} failed (${result.error?.message ?? `exit ${result.status}`}).`);
}

function ensureNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    fail(`Node ${process.versions.node} is too old. Install Node 20.19 or newer (https://nodejs.org).`);
  }
}

function ensureNpmPackages() {
  const lockHash = () =>
    createHash('sha256')
      .update(readFileSync(join(root, 'package-lock.json')))
      .digest('hex');
  const stampPath = join(root, 'node_modules', '.starling-lock');
  if (existsSync(stampPath) && readFileSync(stampPath, 'utf8') === lockHash()) return;
  say('installing the npm packages (the lock file is new or has changed)');
  // Not `npm ci`: it refuses a lock file that lacks the optional binaries of other platforms, and a
  // registry need not hold those of all.
  runOrFail('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error'], 'npm install');
  mkdirSync(dirname(stampPath), { recursive: true });
  writeFileSync(stampPath, lockHash());
}

function ensurePrograms(purpose) {
  const missing = programs.filter((program) => program.for.includes(purpose) && !findProgram(program.find));
  if (missing.length === 0) return;
  const where = platform();
  const names = (key) => missing.flatMap((program) => program[key] ?? []);
  for (const program of missing) say(`missing: ${program.find.replace('file:', '')} (${program.why})`);
  const isRoot = process.getuid?.() === 0;
  const hasSudo = !isRoot && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0;
  if (where === 'debian' && (isRoot || hasSudo)) {
    const packages = names('debian');
    say(`installing from Debian's packages: ${packages.join(' ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const apt = (args, what) =>
      isRoot
        ? runOrFail('apt-get', args, what, { env })
        : runOrFail('sudo', ['-n', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...args], what, { env });
    apt(['-qq', '-o', 'Acquire::Retries=3', 'update'], 'apt-get update');
    apt(['-qq', '-y', '--no-install-recommends', 'install', ...packages], 'apt-get install');
    return;
  }
  const commands = {
    debian: `sudo apt-get install --no-install-recommends ${names('debian').join(' ')}`,
    fedora: `sudo dnf install ${names('fedora').join(' ')}`,
    macos: `brew install ${names('macos').join(' ')}`,
  };
  fail(
    where === 'other'
      ? `install the missing programs with your system's package manager. On Debian it would be:\n  ${commands.debian}`
      : `this account may not install programs. Run this, then try again:\n  ${commands[where]}`,
  );
}

/** Runs a command to its end, passing signals on; returns its exit code. */
function run(command, args) {
  return new Promise((resolve) => {
    const env = {
      ...process.env,
      PATH: `${join(root, 'node_modules', '.bin')}${pathDelimiter}${process.env.PATH}`,
    };
    // Started as this process's own executable where it is a script of ours, so that signals reach it directly.
    const child = spawn(command, args, { cwd: process.cwd(), stdio: 'inherit', env });
    const forward = (signal) => child.kill(signal);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, forward);
    child.on('error', (error) => {
      say(error.message);
      resolve(1);
    });
    child.on('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128 + 15)));
  });
}

const separator = process.argv.indexOf('--');
const purpose = process.argv[2];
if (separator !== 3 || !['run', 'test', 'bench'].includes(purpose)) {
  fail('usage: node tools/bootstrap.mjs <run|test|bench> -- COMMAND [ARG...] [--and COMMAND [ARG...]]');
}
ensureNode();
ensureNpmPackages();
ensurePrograms(purpose);
const { ensureBuilt } = await import('./build.mjs');
await ensureBuilt();

const commands = [[]];
for (const word of process.argv.slice(separator + 1)) {
  if (word === '--and') commands.push([]);
  else commands.at(-1).push(word);
}
for (const [command, ...args] of commands) {
  process.exitCode = await run(command, args);
  if (process.exitCode !== 0) break;
}
