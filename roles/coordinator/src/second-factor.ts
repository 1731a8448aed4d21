/**
 * The second factor: codes that change every 30 s, and recovery codes for who has lost the device.
 *
 * Sources: RFC 6238 (TOTP), RFC 4226 (HOTP); the URI: Google Authenticator's Key URI Format.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { Secret, TOTP } from 'otpauth';

const ISSUER = 'Starling';
const PERIOD_SECONDS = 30;
/** Clocks may be a step apart. */
const WINDOW_STEPS = 1;
/** RFC 4226, section 4: at least 128 bits, better 160. */
const SECRET_BYTES = 20;
const RECOVERY_CODES = 10;
/** 80 bits: beyond guessing, so that a fast digest protects them well enough. */
const RECOVERY_BYTES = 10;

export interface SecondFactor {
  /** In base 32. */
  readonly secret: string;
  /** Of the last code that was taken. */
  readonly lastCounter: number;
  readonly recoverySha256s: readonly string[];
}

/** What is to be remembered when a code was right, so that it is not right again. */
export type Spent = { readonly lastCounter: number } | { readonly recoverySha256s: readonly string[] };

const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex');

export function newSecret(): string {
  return new Secret({ buffer: Uint8Array.from(randomBytes(SECRET_BYTES)).buffer }).base32;
}

/** For authenticator apps. */
export function secretUri(secret: string, account: string): string {
  return totp(secret, account).toString();
}

/** @returns undefined when the code is wrong, or was taken already */
export function checkCode(factor: SecondFactor, code: string, nowMs: number): Spent | undefined {
  const plain = code.replace(/[\s-]/g, '').toLowerCase();
  if (/^\d{6}$/.test(plain)) {
    const delta = totp(factor.secret, '').validate({ token: plain, timestamp: nowMs, window: WINDOW_STEPS });
    if (delta === null) return undefined;
    const counter = Math.floor(nowMs / 1000 / PERIOD_SECONDS) + delta;
    return counter > factor.lastCounter ? { lastCounter: counter } : undefined;
  }
  const digest = Buffer.from(sha256Hex(plain));
  const left = factor.recoverySha256s.filter((known) => !timingSafeEqual(Buffer.from(known), digest));
  return left.length < factor.recoverySha256s.length ? { recoverySha256s: left } : undefined;
}

export function newRecoveryCodes(): { readonly codes: string[]; readonly sha256s: string[] } {
  const plain = Array.from({ length: RECOVERY_CODES }, () => randomBytes(RECOVERY_BYTES).toString('hex'));
  return { codes: plain.map((code) => code.replace(/(.{5})(?=.)/g, '$1-')), sha256s: plain.map(sha256Hex) };
}

function totp(secret: string, label: string): TOTP {
  return new TOTP({
    issuer: ISSUER,
    label,
    secret: Secret.fromBase32(secret),
    period: PERIOD_SECONDS,
    digits: 6,
  });
}
