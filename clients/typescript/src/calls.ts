import type { Call } from "./call.js";
import type { Caller } from "./caller.js";

export type { Call, CallOptions, WriteOptions } from "./call.js";
export type { Caller } from "./caller.js";

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
