import { randomBytes } from "node:crypto";
import { type IncomingMessage, type RequestListener, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Books } from "./explored.js";
import type { Inbox } from "./inbox.js";

/** How long an application may take to answer: as long as the sandbox waits for it. */
const FORWARD_MS = 15_000;
/** Headers that belong to one connection, so they are not passed on. */
const HOP_HEADERS = ["host", "connection", "content-length", "transfer-encoding", "keep-alive"];
/** Much larger than any webhook. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
const BOOKS = "/books";
const RESTART = "/restart";

/** The test's own webhook endpoint: a server on loopback that records what arrives, and passes it on to an application. */
export class Receiver {
  /** The endpoint's secret, as soon as it is known. */
  secret = "";
  /** The URL of an application, which gets every request and whose answer is the receiver's. */
  forwardTo: string | undefined;
  /** What the application believes, for `psp explore`. */
  books: Books | undefined;
  /** Restarts the application, for `psp explore`. */
  restart: (() => Promise<void> | void) | undefined;
  /** The path is random: a webhook for another test, which had this port before, is not one of this test. */
  readonly #path = `/${randomBytes(8).toString("hex")}`;
  readonly #inbox: Inbox;
  readonly #server: Server;

  constructor(inbox: Inbox) {
    this.#inbox = inbox;
    this.#server = createServer((request, response) => {
      this.#take(request, response).catch(() => response.destroy());
    });
  }

  /** Begin to listen on a free port, and return the endpoint's URL. `host` is the name by which the sandbox reaches it. */
  async open(host: string): Promise<string> {
    return `http://${host}:${await listen(this.#server)}${this.#path}`;
  }

  /** Where this machine gets the books and restarts the application, if the test has said how. */
  get exploredUrls(): { booksUrl: string | null; restartUrl: string | null } {
    const url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${this.#path}`;
    return { booksUrl: this.books ? url + BOOKS : null, restartUrl: this.restart ? url + RESTART : null };
  }

  /** Stop listening. */
  close(): Promise<void> {
    return close(this.#server);
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request);
    if (request.url === this.#path + BOOKS && this.books) {
      response.end(JSON.stringify(await this.books()));
      return;
    }
    if (request.url === this.#path + RESTART && this.restart) {
      await this.restart();
      response.end();
      return;
    }
    if (request.method !== "POST" || request.url !== this.#path) {
      response.writeHead(410).end();
      return;
    }
    const received = this.#inbox.add(this.secret, headersOf(request), body);
    const passed = this.forwardTo === undefined ? undefined : await forward(this.forwardTo, received.headers, body);
    received.status = passed?.status ?? (received.problem === undefined ? 204 : 401);
    received.answer = passed?.answer ?? "";
    response.writeHead(received.status).end(received.answer);
  }
}

/** Begin to listen on a free port of loopback, and return the port. The process may end while the server listens. */
export function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      server.unref();
      resolve((server.address() as AddressInfo).port);
    });
  });
}

/** Stop a server, and end its connections. */
export function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** Return a server for an application: one that it has made itself, or the function that answers requests. */
export function serverOf(app: Server | RequestListener): Server {
  return typeof app === "function" ? createServer(app) : app;
}

async function bodyOf(request: IncomingMessage): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new RangeError("the body is too large");
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

function headersOf(request: IncomingMessage): Record<string, string> {
  return Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
}

/** Send a request to an application, and return its answer; 502 if it gives none. */
async function forward(
  url: string,
  headers: Readonly<Record<string, string>>,
  body: Uint8Array<ArrayBuffer>,
): Promise<{ status: number; answer: string }> {
  const passed = Object.entries(headers).filter(([name]) => !HOP_HEADERS.includes(name));
  try {
    const init = { method: "POST", headers: passed, body, redirect: "manual" as const, signal: AbortSignal.timeout(FORWARD_MS) };
    const response = await fetch(url, init);
    return { status: response.status, answer: await response.text() };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { status: 502, answer: `the application at ${url} did not answer: ${String(cause)}` };
  }
}
