import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { Call } from "./call.js";
import { type ProblemError, PspError, UnexpectedResponse, Unreachable } from "./errors.js";
import type { Problem } from "./generated/models.js";
import { problemError } from "./generated/problems.js";
import { queryString } from "./query-string.js";

const DEFAULT_URL = "http://127.0.0.1:8000";
const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];
/** The development keys of `psp up`. A sandbox accepts them on loopback only. */
const DEMO_KEYS = { merchant: "sk_sandbox_demo_admin", operator: "ak_sandbox_development_admin" };
const HEADERS = { merchant: "X-API-KEY", operator: "X-ADMIN-KEY" };
const NAMES = { merchant: "apiKey or PSP_API_KEY", operator: "adminKey or PSP_ADMIN_KEY" };
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;
/** Statuses after which a call is repeated: it was not executed, or its idempotency key prevents a second effect. */
const RETRIED = [429, 502, 503, 504];
// A test may fake the clock of this process; a retry must still end.
const now = performance.now.bind(performance);

/** Where a sandbox is, and how to call it. */
export interface ClientOptions {
  /** By default PSP_URL, or the sandbox that `psp up` starts. */
  url?: string | undefined;
  /** The merchant's key. By default PSP_API_KEY or, on loopback, that of the demo merchant. */
  apiKey?: string | undefined;
  /** The operator's key, for merchants only. By default PSP_ADMIN_KEY or, on loopback, that of `psp up`. */
  adminKey?: string | undefined;
  /** How long each attempt of a call may take: 30 000 ms by default. */
  timeoutMs?: number | undefined;
  /** How often a call is repeated if it gets no answer, or a 429, 502, 503 or 504: 5 times by default. */
  retries?: number | undefined;
  /** No attempt begins later than this after the first: 60 000 ms by default. */
  retryMs?: number | undefined;
  /** What the sandbox's journal shows as the caller. */
  userAgent?: string | undefined;
}

interface Answer {
  status: number;
  headers: Headers;
  text: string;
}

/** Sends calls with the keys of one caller. */
export class Caller {
  readonly url: string;
  readonly adminKey: string | undefined;
  readonly #options: ClientOptions;
  readonly #keys: Record<"merchant" | "operator", string | undefined>;

  /** Throws a TypeError if the URL is not one. */
  constructor(options: ClientOptions) {
    const url = new URL(options.url || process.env["PSP_URL"] || DEFAULT_URL);
    if (!["http:", "https:"].includes(url.protocol)) throw new TypeError(`${url.href} is not the URL of a sandbox`);
    const demo = LOOPBACK.includes(url.hostname) ? DEMO_KEYS : undefined;
    this.url = url.href.replace(/\/+$/, "");
    this.#options = options;
    this.#keys = {
      merchant: options.apiKey || process.env["PSP_API_KEY"] || demo?.merchant,
      operator: options.adminKey || process.env["PSP_ADMIN_KEY"] || demo?.operator,
    };
    this.adminKey = this.#keys.operator;
  }

  /** Return the options of a client with another merchant's key. */
  optionsWith(apiKey: string): ClientOptions {
    return { ...this.#options, url: this.url, adminKey: this.adminKey, apiKey };
  }

  /** Send a call and return its result. Throws a ProblemError, Unreachable or UnexpectedResponse. */
  async send<T>(call: Call): Promise<T> {
    const answer = await this.#answer(call);
    if (answer.status >= 400) throw failure(answer);
    return result(call, answer) as T;
  }

  /** Open a response whose body the caller reads. Throws as `send` does, and does not retry. */
  async open(call: Call): Promise<Response> {
    const { url, init } = this.#request(call, undefined);
    const response = await fetch(url, init).catch((error: unknown) => {
      throw this.#unreachable(call, undefined, error);
    });
    if (!response.ok) throw failure({ status: response.status, headers: response.headers, text: await response.text() });
    return response;
  }

  async #answer(call: Call): Promise<Answer> {
    const key = call.isWrite ? (call.idempotencyKey ?? randomUUID()) : undefined;
    const timeoutMs = (this.#options.timeoutMs ?? 30_000) + (call.waits ?? 0) * 1000;
    const retrying = new Retrying(
      key !== undefined || call.method === "GET" ? (this.#options.retries ?? 5) : 0,
      this.#options.retryMs ?? 60_000,
    );
    for (;;) {
      const { url, init } = this.#request(call, key);
      const ends = AbortSignal.timeout(timeoutMs);
      let wait: number | undefined;
      try {
        const response = await fetch(url, { ...init, signal: call.signal ? AbortSignal.any([call.signal, ends]) : ends });
        const answer = { status: response.status, headers: response.headers, text: await response.text() };
        wait = isRetried(answer) ? retrying.next(retryAfterMs(answer)) : undefined;
        if (wait === undefined) return answer;
      } catch (error) {
        call.signal?.throwIfAborted();
        wait = retrying.next(0);
        if (wait === undefined) throw this.#unreachable(call, key, error);
      }
      await pause(wait, undefined, call.signal ? { signal: call.signal } : {});
    }
  }

  #request(call: Call, key: string | undefined): { url: string; init: RequestInit } {
    const headers = new Headers({ "User-Agent": this.#options.userAgent ?? "psp-sandbox-node" });
    for (const [name, value] of Object.entries(call.headers ?? {})) {
      if (value !== undefined) headers.set(name, value);
    }
    const auth = call.auth ?? "merchant";
    if (auth !== "none") {
      const secret = this.#keys[auth];
      if (!secret) throw new PspError(`This call needs a key: give ${NAMES[auth]}.`);
      headers.set(HEADERS[auth], secret);
    }
    if (key !== undefined) headers.set("X-IDEMPOTENCY-KEY", key);
    const init: RequestInit = { method: call.method, headers, redirect: "manual" };
    if (call.file !== undefined) {
      init.body = new FormData();
      init.body.set("file", new Blob([call.file], { type: "text/csv" }), "file.csv");
    } else if (call.body !== undefined) {
      headers.set("Content-Type", call.mediaType ?? "application/json");
      init.body = JSON.stringify(call.body);
    }
    return { url: `${this.url}${call.path}${queryString(call.query ?? {})}`, init };
  }

  #unreachable(call: Call, key: string | undefined, error: unknown): Unreachable {
    const repeat = key === undefined ? "" : ` It may have been executed: repeat it with the idempotency key ${key}.`;
    return new Unreachable(`${call.method} ${this.url}${call.path} got no answer: ${reasonOf(error)}.${repeat}`, key, error);
  }
}

/** Counts the attempts of one call, and says how long to wait before the next one. */
class Retrying {
  #left: number;
  #pauseMs = FIRST_PAUSE_MS;
  readonly #ends: number;

  constructor(retries: number, retryMs: number) {
    this.#left = retries;
    this.#ends = now() + retryMs;
  }

  /** Return the milliseconds to wait, or undefined if there is no next attempt. */
  next(atLeastMs: number): number | undefined {
    // Retries of many clients that failed together should not arrive together.
    const wait = Math.max(atLeastMs, this.#pauseMs * (0.5 + Math.random() / 2));
    if (this.#left <= 0 || now() + wait > this.#ends) return undefined;
    this.#left -= 1;
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    return wait;
  }
}

function isRetried(answer: Answer): boolean {
  return RETRIED.includes(answer.status) || (answer.status === 409 && answer.text.includes("IDEMPOTENCY_KEY_IN_FLIGHT"));
}

function retryAfterMs(answer: Answer): number {
  const seconds = Number(answer.headers.get("Retry-After") ?? 0);
  return seconds > 0 ? seconds * 1000 : 0;
}

/** Return why fetch failed: its own message never says it. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? error.cause : error;
  return cause.message || (cause as { code?: string }).code || cause.name;
}

function failure(answer: Answer): ProblemError {
  return problemError({ ...plainProblem(answer), ...(parsed(answer.text) as Partial<Problem> | undefined) });
}

/** Return what is known of an error that is not a problem of the API. */
function plainProblem(answer: Answer): Problem {
  return {
    type: "about:blank",
    title: `HTTP ${answer.status}`,
    status: answer.status,
    detail: "The answer has no problem details: it may not come from a sandbox.",
    instance: "",
    code: `HTTP_${answer.status}`,
    request_id: answer.headers.get("X-Request-Id") ?? "",
  };
}

function result(call: Call, answer: Answer): unknown {
  if (call.isText) return answer.text;
  if (answer.status === 204 || answer.text === "") return undefined;
  const body = parsed(answer.text);
  const found = call.member === undefined ? body : body?.[call.member];
  if (found === undefined) {
    throw new UnexpectedResponse(
      `${call.method} ${call.path}: the answer (${answer.status}) is not one of a sandbox. It begins: ${answer.text.slice(0, 200)}`,
    );
  }
  return found;
}

/** Return a JSON object or array, or undefined if the text is something else. */
function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const found: unknown = JSON.parse(text);
    return typeof found === "object" && found !== null ? (found as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
