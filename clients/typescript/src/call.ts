import type { FileContent } from "./values.js";

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
