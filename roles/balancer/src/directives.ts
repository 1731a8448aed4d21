/**
 * nginx's configuration language as data: built by `nginx-config.ts`, serialised for nginx, and read
 * again by `grade.ts`, which looks at the text that nginx gets.
 */

/** A directive with its arguments; one that opens a block has a body. */
export interface Directive {
  readonly name: string;
  readonly args: readonly string[];
  readonly body?: readonly Directive[];
}

/** A directive that ends with a semicolon. */
export function directive(name: string, ...args: readonly (string | number)[]): Directive {
  return { name, args: args.map(String) };
}

/** A directive with a body; what is `undefined` or `false` in it is left out. */
export function block(
  name: string,
  args: readonly string[],
  ...body: readonly (Directive | readonly Directive[] | undefined | false)[]
): Directive {
  return { name, args, body: body.flatMap((one) => (one === undefined || one === false ? [] : one)) };
}

/** @throws RangeError when an argument holds what nginx has no way to write */
export function serialiseDirectives(directives: readonly Directive[], indent = ''): string {
  return directives
    .map(({ name, args, body }) => {
      const head = indent + [name, ...args].map(quoted).join(' ');
      if (body === undefined) return `${head};\n`;
      return `${head} {\n${serialiseDirectives(body, `${indent}  `)}${indent}}\n`;
    })
    .join('');
}

/** A backslash is kept before what it does not escape (ngx_conf_read_token), so regular expressions stay as they are. */
function quoted(argument: string): string {
  if (/[\p{Cc}]/u.test(argument))
    throw new RangeError('nginx takes no control characters in its configuration.');
  if (/^[^\s;{}"'\\#]+$/.test(argument)) return argument;
  return `"${argument.replace(/\\(?=["'\\trn]|$)/g, '\\\\').replaceAll('"', '\\"')}"`;
}

/**
 * Reads what {@link serialiseDirectives} writes.
 * @throws SyntaxError when a block is not closed, or a directive not ended
 */
export function parseDirectives(text: string): Directive[] {
  const tokens = [...text.matchAll(/#[^\n]*|"((?:[^"\\]|\\.)*)"|([{};])|([^\s{};"]+)/g)].filter(
    ([token]) => !token.startsWith('#'),
  );
  let at = 0;
  const parseBody = (isNested: boolean): Directive[] => {
    const body: Directive[] = [];
    let words: string[] = [];
    while (at < tokens.length) {
      const [, inQuotes, mark, word] = tokens[at++] ?? [];
      if (inQuotes !== undefined) words.push(inQuotes.replace(/\\(["'\\])/g, '$1'));
      else if (word !== undefined) words.push(word);
      else if (mark === '}') {
        if (!isNested || words.length > 0)
          throw new SyntaxError('A "}" stands where nothing is to be closed.');
        return body;
      } else {
        const [name, ...args] = words;
        if (name === undefined) throw new SyntaxError(`A "${mark}" stands where a directive is expected.`);
        body.push(mark === '{' ? { name, args, body: parseBody(true) } : { name, args });
        words = [];
      }
    }
    if (isNested || words.length > 0) throw new SyntaxError('The configuration ends within a directive.');
    return body;
  };
  return parseBody(false);
}

/** All directives of this name, however deep, in the order of the text. */
export function findDirectives(directives: readonly Directive[], name: string): Directive[] {
  return directives.flatMap((one) => [
    ...(one.name === name ? [one] : []),
    ...findDirectives(one.body ?? [], name),
  ]);
}
