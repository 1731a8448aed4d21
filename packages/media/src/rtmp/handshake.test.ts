import { describe, expect, test } from 'vitest';
import { concatBytes } from '../bytes.ts';
import { Handshake } from './handshake.ts';

const random = (fill: number) => new Uint8Array(1528).fill(fill);
/** RTMP 1.0 section 5.2.3: time, zero, random. */
const packet = (time: number, fill: number) =>
  concatBytes([Uint8Array.of(0, 0, 0, time), new Uint8Array(4), random(fill)]);
const C0 = Uint8Array.of(3);
const C1 = packet(9, 0xcc);
const S1 = packet(0, 0x55);

describe('server', () => {
  test('answers S0 S1 S2 once C1 is complete, and leaves what follows C2', () => {
    const output: Uint8Array[] = [];
    const server = new Handshake('server', random(0x55), output);
    expect(server.receive(concatBytes([C0, C1.subarray(0, 1535)]))).toBe(1536);
    expect(output).toEqual([]);
    expect(server.receive(C1.subarray(1535))).toBe(1);
    expect(concatBytes(output)).toEqual(concatBytes([C0, S1, C1]));
    expect(server.isComplete).toBe(false);
    expect(server.receive(concatBytes([S1, Uint8Array.of(1, 2, 3)]))).toBe(1536);
    expect(server.isComplete).toBe(true);
  });

  test('the same byte by byte, and with a C2 that echoes nothing', () => {
    const output: Uint8Array[] = [];
    const server = new Handshake('server', random(0x55), output);
    for (const byte of concatBytes([C0, C1, packet(1, 0xee)])) {
      expect(server.isComplete).toBe(false);
      expect(server.receive(Uint8Array.of(byte))).toBe(1);
    }
    expect(server.isComplete).toBe(true);
    expect(concatBytes(output)).toEqual(concatBytes([C0, S1, C1]));
  });

  test.each([
    ['HTTP', 0x47],
    ['TLS', 0x16],
    ['encrypted RTMP', 6],
  ])('refuses %s on its first byte', (_, byte) => {
    const server = new Handshake('server', random(0), []);
    expect(() => server.receive(Uint8Array.of(byte))).toThrow(/RTMP_BAD_VERSION/);
  });
});

test('client sends C0 C1 at once and C2 after S1', () => {
  const output: Uint8Array[] = [];
  const client = new Handshake('client', random(0xcc), output);
  expect(concatBytes(output.splice(0))).toEqual(concatBytes([C0, packet(0, 0xcc)]));
  const S0S1S2 = concatBytes([C0, S1, packet(0, 0xcc)]);
  expect(client.receive(S0S1S2.subarray(0, 1537))).toBe(1537);
  expect(concatBytes(output.splice(0))).toEqual(S1);
  expect(client.receive(concatBytes([S0S1S2.subarray(1537), Uint8Array.of(7)]))).toBe(1536);
  expect(client.isComplete).toBe(true);
  expect(output).toEqual([]);
});

test('needs 1528 random bytes', () => {
  expect(() => new Handshake('server', new Uint8Array(1536), [])).toThrow(/1528/);
});
