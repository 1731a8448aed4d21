/**
 * Bytes written out field by field: on each line hexadecimal digits, then what they mean.
 *
 * ```
 * hex(`
 *   0000000c  size
 *   66726565  'free'
 *   01020304
 * `)
 * ```
 */
export function hex(fields: string): Uint8Array {
  const digits = fields
    .split('\n')
    .map((line) => line.trim().split(/\s/)[0])
    .join('');
  if (!/^([0-9a-f]{2})*$/.test(digits)) throw new Error(`not hexadecimal: ${digits}`);
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
