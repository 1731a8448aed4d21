/**
 * What goes over the wire between a client of AWS and AWS, as botocore's service descriptions say it: requests to
 * objects, objects to responses, in the protocols `query`, `ec2`, `json`, `rest-json` and, for one object, `rest-xml`. The descriptions are those
 * that Debian's awscli brings; nothing about any service is written here.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const DATA = '/usr/lib/python3/dist-packages/awscli/botocore/data';

interface Shape {
  readonly type: string;
  readonly members?: Readonly<Record<string, Member>>;
  readonly member?: Member;
  readonly required?: readonly string[];
  /** Of a structure: the member that is the body. */
  readonly payload?: string;
  readonly enum?: readonly string[];
  readonly flattened?: boolean;
  readonly error?: { readonly code?: string; readonly httpStatusCode?: number };
}

interface Member {
  readonly shape: string;
  readonly location?: string;
  readonly locationName?: string;
  readonly queryName?: string;
  readonly flattened?: boolean;
}

interface Operation {
  readonly name: string;
  readonly http: { readonly method: string; readonly requestUri: string };
  readonly input?: Member;
  readonly output?: Member & { readonly resultWrapper?: string };
}

interface Description {
  readonly metadata: {
    readonly protocol: 'query' | 'ec2' | 'json' | 'rest-json' | 'rest-xml';
    readonly xmlNamespace?: string;
    readonly targetPrefix?: string;
  };
  readonly operations: Readonly<Record<string, Operation>>;
  readonly shapes: Readonly<Record<string, Shape>>;
}

/** What a service refuses a call with. The code is the one that goes over the wire. */
export class AwsError extends Error {
  readonly code: string;
  readonly status: number;

  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

export interface Request {
  readonly method: string;
  /** With the query. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export class Wire {
  readonly #about: Description;

  /** @param folder of the service in botocore's data */
  constructor(folder: string) {
    const versions = readdirSync(join(DATA, folder)).sort();
    this.#about = JSON.parse(
      readFileSync(join(DATA, folder, versions.at(-1) ?? '', 'service-2.json'), 'utf8'),
    );
  }

  get operations(): readonly string[] {
    return Object.keys(this.#about.operations);
  }

  /** Names of the members that an operation takes. */
  inputNames(operation: string): string[] {
    const input = this.#about.operations[operation]?.input;
    return Object.keys((input && this.#shape(input))?.members ?? {});
  }

  /** @throws AwsError when the description does not allow the request */
  read(request: Request): { operation: string; input: Record<string, unknown> } {
    const { protocol } = this.#about.metadata;
    if (protocol === 'query' || protocol === 'ec2') return this.#readForm(request.body);
    const { operation, path } = protocol === 'json' ? this.#byTarget(request) : this.#byUri(request);
    const about = this.#about.operations[operation];
    const input: Record<string, unknown> = { ...path };
    if (protocol === 'rest-xml') {
      const payload = about?.input && this.#shape(about.input).payload;
      if (payload !== undefined) input[payload] = request.body;
      return { operation, input };
    }
    const body = request.body === '' ? {} : (JSON.parse(request.body) as Record<string, unknown>);
    const shape = about?.input && this.#shape(about.input);
    for (const [name, member] of Object.entries(shape?.members ?? {})) {
      const key = member.locationName ?? name;
      const query = new URL(request.url, 'http://aws').searchParams;
      if (member.location === 'querystring') {
        const text = query.get(key);
        if (text !== null) input[name] = text;
        const list = query.getAll(key);
        if (this.#shape(member).type === 'list') input[name] = list;
      } else if (member.location === undefined && body[key] !== undefined) input[name] = body[key];
    }
    // What is newer than the description is taken as it is.
    for (const [key, value] of Object.entries(body)) input[key] ??= value;
    if (about?.input) this.#check(about.input, input, '');
    return { operation, input };
  }

  write(operation: string, output: object): Response {
    const { protocol, xmlNamespace = '' } = this.#about.metadata;
    const member = this.#about.operations[operation]?.output;
    if (protocol === 'json' || protocol === 'rest-json') {
      const body = member === undefined ? {} : this.#toJson(member, output);
      const type = protocol === 'json' ? 'application/x-amz-json-1.1' : 'application/json';
      return {
        status: 200,
        headers: { 'content-type': type, 'x-amzn-requestid': 'fake' },
        body: JSON.stringify(body),
      };
    }
    if (protocol === 'rest-xml') {
      const payload = member && this.#shape(member).payload;
      const body = payload === undefined ? '' : String((output as Record<string, unknown>)[payload]);
      return { status: 200, headers: {}, body };
    }
    const inner = member === undefined ? '' : this.#structureToXml(this.#shape(member), output);
    const wrapper = member?.resultWrapper;
    const result = wrapper === undefined ? inner : `<${wrapper}>${inner}</${wrapper}>`;
    const end =
      protocol === 'ec2'
        ? '<requestId>fake</requestId>'
        : '<ResponseMetadata><RequestId>fake</RequestId></ResponseMetadata>';
    const body = `<${operation}Response xmlns="${xmlNamespace}">${result}${end}</${operation}Response>`;
    return { status: 200, headers: { 'content-type': 'text/xml' }, body };
  }

  writeError({ code, message, status }: AwsError): Response {
    const { protocol } = this.#about.metadata;
    if (protocol === 'json' || protocol === 'rest-json') {
      const headers = { 'content-type': 'application/x-amz-json-1.1', 'x-amzn-errortype': code };
      return { status, headers, body: JSON.stringify({ __type: code, message, Message: message }) };
    }
    const error = `<Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message>`;
    if (protocol === 'rest-xml')
      return { status, headers: { 'content-type': 'application/xml' }, body: `<Error>${error}</Error>` };
    const body =
      protocol === 'ec2'
        ? `<Response><Errors><Error>${error}</Error></Errors><RequestID>fake</RequestID></Response>`
        : `<ErrorResponse><Error><Type>Sender</Type>${error}</Error><RequestId>fake</RequestId></ErrorResponse>`;
    return { status, headers: { 'content-type': 'text/xml' }, body };
  }

  #shape(member: Member): Shape {
    const shape = this.#about.shapes[member.shape];
    if (shape === undefined) throw new Error(`no shape ${member.shape}`);
    return shape;
  }

  #byTarget({ headers }: Request): { operation: string; path: Record<string, string> } {
    const [prefix, operation = ''] = String(headers['x-amz-target']).split('.');
    if (prefix !== this.#about.metadata.targetPrefix || this.#about.operations[operation] === undefined)
      throw new AwsError('UnknownOperationException', `no operation ${headers['x-amz-target']}`);
    return { operation, path: {} };
  }

  #byUri({ method, url, headers }: Request): { operation: string; path: Record<string, string> } {
    const { pathname, searchParams } = new URL(url, 'http://aws');
    for (const [operation, { http, input }] of Object.entries(this.#about.operations)) {
      if (http.method !== method) continue;
      const [template = '', query] = http.requestUri.split('?');
      const shape = input && this.#shape(input);
      // Of S3, several operations have one path, and are told apart by what they require.
      const isComplete = (shape?.required ?? []).every((name) => {
        const { location, locationName = name } = shape?.members?.[name] ?? {};
        if (location === 'header') return headers[locationName.toLowerCase()] !== undefined;
        return location !== 'querystring' || searchParams.has(locationName);
      });
      if (!isComplete || (query !== undefined && !searchParams.has(query))) continue;
      const names = [...template.matchAll(/\{(\w+)\+?\}/g)].map((match) => match[1] ?? '');
      const pattern = template.replace(/\{\w+(\+?)\}/g, (_, more) => (more === '+' ? '(.+)' : '([^/]+)'));
      const match = new RegExp(`^${pattern}/?$`).exec(pathname);
      if (match === null) continue;
      const members = Object.entries(shape?.members ?? {});
      const path = Object.fromEntries(
        names.map((name, index) => [
          members.find(([own, member]) => (member.locationName ?? own) === name)?.[0] ?? name,
          decodeURIComponent(match[index + 1] ?? ''),
        ]),
      );
      return { operation, path };
    }
    throw new AwsError('UnknownOperationException', `no operation for ${method} ${url}`, 404);
  }

  #readForm(body: string): { operation: string; input: Record<string, unknown> } {
    const form = new URLSearchParams(body);
    const operation = form.get('Action') ?? '';
    const about = this.#about.operations[operation];
    if (about === undefined) throw new AwsError('InvalidAction', `no operation ${operation}`);
    const unread = new Set([...form.keys()].filter((key) => key !== 'Action' && key !== 'Version'));
    const input = about.input === undefined ? {} : this.#fromForm(about.input, form, '', unread);
    const [unknown] = unread;
    if (unknown !== undefined)
      throw new AwsError('UnknownParameter', `${operation} has no parameter ${unknown}`);
    if (about.input) this.#check(about.input, input, '');
    return { operation, input: (input ?? {}) as Record<string, unknown> };
  }

  /** Undefined when nothing in the form begins with the prefix. */
  #fromForm(member: Member, form: URLSearchParams, prefix: string, unread: Set<string>): unknown {
    const shape = this.#shape(member);
    const isEc2 = this.#about.metadata.protocol === 'ec2';
    if (shape.type === 'structure') {
      const found: Record<string, unknown> = {};
      for (const [name, inner] of Object.entries(shape.members ?? {})) {
        const key = isEc2
          ? (inner.queryName ?? capital(inner.locationName ?? name))
          : (inner.locationName ?? name);
        const value = this.#fromForm(inner, form, prefix === '' ? key : `${prefix}.${key}`, unread);
        if (value !== undefined) found[name] = value;
      }
      return Object.keys(found).length > 0 || prefix === '' ? found : undefined;
    }
    if (shape.type === 'list' && shape.member !== undefined) {
      // An empty list has no members, but its name.
      if (unread.delete(prefix)) return [];
      const isFlat = isEc2 || shape.flattened === true;
      const base = isFlat ? prefix : `${prefix}.${shape.member.locationName ?? 'member'}`;
      const list: unknown[] = [];
      for (let index = 1; ; index++) {
        const value = this.#fromForm(shape.member, form, `${base}.${index}`, unread);
        if (value === undefined) break;
        list.push(value);
      }
      return list.length > 0 ? list : undefined;
    }
    const text = form.get(prefix);
    if (text === null) return undefined;
    unread.delete(prefix);
    if (shape.type === 'boolean') return text === 'true';
    if (shape.type === 'integer' || shape.type === 'long') return Number(text);
    return text;
  }

  #check(member: Member, value: unknown, path: string): void {
    const shape = this.#shape(member);
    if (shape.type === 'list' && Array.isArray(value) && shape.member !== undefined) {
      for (const [index, item] of value.entries()) this.#check(shape.member, item, `${path}[${index}]`);
    }
    if (shape.enum !== undefined && !shape.enum.includes(String(value)))
      throw new AwsError('ValidationException', `${path}: ${value} is not one of ${shape.enum.join(', ')}`);
    if (shape.type !== 'structure') return;
    const fields = (value ?? {}) as Record<string, unknown>;
    for (const name of shape.required ?? []) {
      if (fields[name] === undefined) throw new AwsError('ValidationException', `${path}.${name} is missing`);
    }
    for (const [name, inner] of Object.entries(shape.members ?? {})) {
      if (fields[name] !== undefined) this.#check(inner, fields[name], `${path}.${name}`);
    }
  }

  #toJson(member: Member, value: unknown): unknown {
    const shape = this.#shape(member);
    if (shape.type === 'timestamp') return (value as Date).getTime() / 1000;
    if (shape.type === 'list' && shape.member !== undefined) {
      const inner = shape.member;
      return (value as unknown[]).map((item) => this.#toJson(inner, item));
    }
    if (shape.type !== 'structure') return value;
    const fields: Record<string, unknown> = {};
    for (const [name, item] of Object.entries(value as object)) {
      if (item === undefined) continue;
      const inner = shape.members?.[name];
      // Newer than the description.
      fields[inner?.locationName ?? name] = inner === undefined ? item : this.#toJson(inner, item);
    }
    return fields;
  }

  #structureToXml(shape: Shape, value: object): string {
    return Object.entries(value)
      .map(([name, item]) => {
        const inner = shape.members?.[name];
        if (inner === undefined) throw new Error(`${name} is not in the description`);
        return item === undefined || item === null
          ? ''
          : this.#toXml(inner, inner.locationName ?? name, item);
      })
      .join('');
  }

  #toXml(member: Member, name: string, value: unknown): string {
    const shape = this.#shape(member);
    if (shape.type === 'list' && shape.member !== undefined) {
      const { member: inner } = shape;
      const isFlat = shape.flattened === true;
      const items = (value as unknown[])
        .map((item) => this.#toXml(inner, isFlat ? name : (inner.locationName ?? 'member'), item))
        .join('');
      return isFlat ? items : `<${name}>${items}</${name}>`;
    }
    if (shape.type === 'structure')
      return `<${name}>${this.#structureToXml(shape, value as object)}</${name}>`;
    const text = shape.type === 'timestamp' ? (value as Date).toISOString() : String(value);
    return `<${name}>${escapeXml(text)}</${name}>`;
  }
}

const capital = (name: string) => name.slice(0, 1).toUpperCase() + name.slice(1);

const escapeXml = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
