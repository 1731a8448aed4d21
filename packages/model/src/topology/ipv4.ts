/** IPv4 address ranges in CIDR notation (RFC 4632). */

/** Both ends are part of it; as unsigned 32-bit numbers. */
export interface Range {
  readonly first: number;
  readonly last: number;
  readonly prefixBits: number;
}

/** @returns undefined for what is not dotted-decimal, with no leading zeros */
export function parseAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) {
    return undefined;
  }
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}

/** @returns undefined for what is not a range, and where bits below the prefix are set */
export function parseRange(text: string): Range | undefined {
  const [, addressText = '', bitsText = ''] = /^([\d.]+)\/(\d{1,2})$/.exec(text) ?? [];
  const first = parseAddress(addressText);
  const prefixBits = Number(bitsText);
  if (first === undefined || bitsText === '' || prefixBits > 32) return undefined;
  const size = 2 ** (32 - prefixBits);
  return first % size === 0 ? { first, last: first + size - 1, prefixBits } : undefined;
}

export function formatRange(range: Range): string {
  return `${formatAddress(range.first)}/${range.prefixBits}`;
}

export function contains(outer: Range, inner: Range): boolean {
  return outer.first <= inner.first && inner.last <= outer.last;
}

export function overlaps(one: Range, other: Range): boolean {
  return one.first <= other.last && other.first <= one.last;
}

/** The range of one address. */
export function hostRange(address: number): Range {
  return { first: address, last: address, prefixBits: 32 };
}
