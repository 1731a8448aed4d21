/** E-mails through the operator's own server, for who hears of events by `mailto:`. */
import { hostname } from 'node:os';
import type { WebhookEvent } from '@starling/model/webhook';
import { createTransport } from 'nodemailer';

const DEADLINE_MS = 10_000;
const SMTPS_PORT = 465;
/** RFC 6409. */
const SUBMISSION_PORT = 587;

/** The address of the server is not one. It holds a password and is not shown. */
export class MailError extends Error {
  override readonly name = 'MailError';
}

export interface MailResult {
  readonly isDelivered: boolean;
  /** For people: what the server answered, or why it did not. */
  readonly outcome: string;
}

export class Mail {
  readonly #server: ReturnType<typeof serverOf> | undefined;

  /**
   * @param smtpUrl `smtps://USER:PASSWORD@HOST:465?from=ADDRESS`, or `smtp://` for STARTTLS, which a password asks for unless the server
   *   is on this machine; undefined where there is none
   * @throws MailError when the address is none
   */
  constructor(smtpUrl: string | undefined) {
    this.#server = smtpUrl === undefined ? undefined : serverOf(smtpUrl);
  }

  /** Sends an event. Never rejects. */
  async send(to: string, event: WebhookEvent, signal: AbortSignal): Promise<MailResult> {
    const server = this.#server;
    if (server === undefined)
      return { isDelivered: false, outcome: 'the coordinator knows no SMTP server: set SMTP_URL' };
    const transport = createTransport({
      ...server.options,
      connectionTimeout: DEADLINE_MS,
      greetingTimeout: DEADLINE_MS,
      socketTimeout: DEADLINE_MS,
      // What is sent is text of our own; nothing is read from files or addresses.
      disableFileAccess: true,
      disableUrlAccess: true,
    });
    const limit = AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]);
    try {
      const late = new Promise<never>((_resolve, reject) => {
        limit.addEventListener('abort', () => reject(new Error(`no answer within ${DEADLINE_MS / 1000} s`)));
      });
      const sent = transport.sendMail({
        from: server.from,
        to,
        subject: subjectOf(event),
        text: textOf(event),
        // The same at each attempt, so that a reader shows it once.
        messageId: `<${event.id}@starling.invalid>`,
        headers: { 'Auto-Submitted': 'auto-generated' },
      });
      sent.catch(() => {}); // it may fail after the deadline
      const { response } = await Promise.race([sent, late]);
      return { isDelivered: true, outcome: firstLine(response) };
    } catch (error) {
      return {
        isDelivered: false,
        outcome: firstLine(error instanceof Error ? error.message : String(error)),
      };
    } finally {
      transport.close();
    }
  }
}

function serverOf(smtpUrl: string) {
  if (!URL.canParse(smtpUrl) || !/^smtps?:$/.test(new URL(smtpUrl).protocol))
    throw new MailError('SMTP_URL is not of the form smtps://USER:PASSWORD@HOST:PORT?from=ADDRESS.');
  const url = new URL(smtpUrl);
  const isTls = url.protocol === 'smtps:';
  const user = decodeURIComponent(url.username);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const isHere = /^(localhost|127\..*|::1)$/.test(host);
  return {
    from: url.searchParams.get('from') ?? (user.includes('@') ? user : `starling@${hostname()}`),
    options: {
      host,
      port: Number(url.port) || (isTls ? SMTPS_PORT : SUBMISSION_PORT),
      secure: isTls,
      // Who sits between must not be able to take TLS away and read the password.
      requireTLS: !isTls && user !== '' && !isHere,
      ...(user === '' ? {} : { auth: { user, pass: decodeURIComponent(url.password) } }),
    },
  };
}

function subjectOf(event: WebhookEvent): string {
  if (!('alarm' in event))
    return `[Starling] ${event.type}: ${'stream' in event ? event.stream : event.channel}`;
  const { kind, target, severity } = event.alarm;
  const what = event.type === 'alarm.raised' ? severity : event.type.replace('alarm.', '');
  return `[Starling] ${what}: ${kind} ${target}`;
}

function textOf(event: WebhookEvent): string {
  if (!('alarm' in event)) return `${JSON.stringify(event, null, 2)}\n`;
  const { alarm, type } = event;
  const lines = [
    alarm.message,
    '',
    `Alarm     ${alarm.kind}`,
    `About     ${alarm.target}`,
    `State     ${alarm.state}`,
    `Raised    ${alarm.raisedAt}`,
    ...(alarm.acknowledgedBy === null ? [] : [`At it     ${alarm.acknowledgedBy}`]),
    ...(alarm.resolvedAt === null ? [] : [`Over      ${alarm.resolvedAt}`]),
    '',
    ...(type === 'alarm.raised' ? [`starling alarm ack ${alarm.id}`] : []),
  ];
  return `${lines.join('\n')}\n`;
}

const firstLine = (text: string) => (text.split(/\r?\n/, 1)[0] ?? '').slice(0, 200);
