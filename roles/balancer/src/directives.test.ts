import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { block, type Directive, directive, parseDirectives, serialiseDirectives } from './directives.ts';

const word = fc.string({ unit: 'grapheme-ascii', maxLength: 12 });
const { directives } = fc.letrec<{ directives: Directive[]; one: Directive }>((tie) => ({
  one: fc.oneof(
    { depthSize: 'small' },
    fc.record({ name: word, args: fc.array(word, { maxLength: 3 }) }),
    fc.record({ name: word, args: fc.array(word, { maxLength: 3 }), body: tie('directives') }),
  ),
  directives: fc.array(tie('one'), { maxLength: 4 }),
}));

describe('directives of nginx', () => {
  it('are read back as they were written', () => {
    fc.assert(
      fc.property(directives, (written) => {
        expect(parseDirectives(serialiseDirectives(written))).toEqual(written);
      }),
    );
  });

  it('are written as nginx reads them', () => {
    const config = [
      block('location', ['~', '\\.m4s$'], directive('return', 200, 'a "b"'), directive('default', '')),
    ];
    expect(serialiseDirectives(config)).toBe(
      'location ~ "\\.m4s$" {\n  return 200 "a \\"b\\"";\n  default "";\n}\n',
    );
  });

  it.each(['a {', 'a; }', 'a', '{ }', ';', 'a { b }'])('%j is no configuration', (text) => {
    expect(() => parseDirectives(text)).toThrow(SyntaxError);
  });
});
