import type { Caller } from "./caller.js";
import type { FileContent } from "./values.js";

export type { Caller } from "./caller.js";

/** Options of every call. */
export interface CallOptions {
  /** Gives the call up. */
  signal?: AbortSignal | undefined;
}

/** Options of a call that changes something. */
export interface WriteOptions extends CallOptions {
  /** By default a new one. All attempts of the call have the same. */
  idempotencyKey?: string | undefined;
}

/** One call of the API. Members whose value is undefined are not sent; null is. */
export interface Call extends WriteOptions {
  method: string;
  path: string;
  query?: object;
  body?: unknown;
  mediaType?: string;
  file?: FileContent;
  headers?: Record<string, string | undefined>;
  auth?: "merchant" | "operator" | "none";
  /** Whether it has an idempotency key. */
  isWrite?: boolean;
  /** How many seconds the sandbox may delay its answer. */
  waits?: number | undefined;
  /** The member of the answer that is the result, if not all of it. */
  member?: string;
  isText?: boolean;
}

/** One page of a list, as the API answers. */
export interface Page<T> {
  data: T[];
  has_more: boolean;
  next_cursor: string | null;
}

/** A list. Iterating over it requests each page when its first item is needed. */
export class Pages<T> implements AsyncIterable<T> {
  readonly #caller: Caller;
  readonly #call: Call;

  /** @internal */
  constructor(caller: Caller, call: Call) {
    this.#caller = caller;
    this.#call = call;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    let query = this.#call.query ?? {};
    for (;;) {
      const page: Page<T> = await this.#caller.send({ ...this.#call, query });
      yield* page.data;
      if (!page.has_more || page.next_cursor === null) return;
      query = { ...query, cursor: page.next_cursor };
    }
  }

  /** Return the first items, at most `most`, and request no more pages than that takes. */
  async toArray(most = Number.POSITIVE_INFINITY): Promise<T[]> {
    const found: T[] = [];
    if (most <= 0) return found;
    for await (const item of this) {
      if (found.push(item) >= most) break;
    }
    return found;
  }
}

/** Return an id as a segment of a path. Throws a TypeError if it is empty or dots: it would name another resource. */
export function segment(id: string): string {
  if (typeof id !== "string" || ["", ".", ".."].includes(id)) throw new TypeError(`${JSON.stringify(id)} is not an id`);
  return encodeURIComponent(id);
}

/** Return query parameters. Arrays become comma-separated, objects `name[key]`; undefined and null are left out. */
export function queryString(parameters: object): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null) continue;
    if (typeof value === "object" && !Array.isArray(value) && !(value instanceof Date)) {
      for (const [key, item] of Object.entries(value)) found.set(`${name}[${key}]`, text(item));
    } else {
      found.set(name, (Array.isArray(value) ? value : [value]).map(text).join(","));
    }
  }
  const joined = found.toString();
  return joined && `?${joined}`;
}

function text(value: unknown): string {
  return value instanceof Date ? value.toISOString() : String(value);
}
