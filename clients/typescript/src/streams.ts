import type { CallOptions } from "./calls.js";
import type { Caller } from "./caller.js";
import { Unreachable } from "./errors.js";
import type { JsonObject } from "./values.js";

/** What a stream shows. */
export interface StreamOptions extends CallOptions {
  /** Types of events, such as "payout.*,request". By default all. */
  types?: string | undefined;
  /** The stream ends after so many events. */
  limit?: number | undefined;
  /** The stream ends after so many seconds. */
  timeout?: number | undefined;
}

/** One event: its type, such as payout.succeeded, its data, and its id, if the log of events has it. */
export interface StreamEvent {
  type: string;
  data: JsonObject;
  id?: string | undefined;
}

/** The events of a stream. Iterate over it with `for await`; leaving the loop ends the stream, and so does `close`. */
export class EventStream implements AsyncIterable<StreamEvent> {
  readonly #lines: AsyncGenerator<string, void, undefined>;

  private constructor(lines: AsyncGenerator<string, void, undefined>) {
    this.#lines = lines;
  }

  /** @internal Open a stream. It is listening when this returns. */
  static async open(caller: Caller, options: StreamOptions): Promise<EventStream> {
    const { types, limit, timeout, signal } = options;
    const query = { types, limit, timeout };
    const headers = { Accept: "text/event-stream" };
    const response = await caller.open({ method: "GET", path: "/sandbox/v1/stream", query, headers, signal });
    const lines = linesOf(response);
    for (let next = await lines.next(); !next.done && !next.value.startsWith(":"); next = await lines.next());
    return new EventStream(lines);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void, undefined> {
    let fields: Record<string, string> = {};
    for await (const line of this.#lines) {
      const found = /^([^:]*):? ?(.*)$/.exec(line);
      if (line !== "" && found) {
        fields[found[1] ?? ""] = found[2] ?? "";
      } else {
        if (fields["data"] !== undefined) yield eventOf(fields);
        fields = {};
      }
    }
  }

  /** End the stream. */
  async close(): Promise<void> {
    await this.#lines.return();
  }
}

function eventOf(fields: Record<string, string>): StreamEvent {
  return { type: fields["event"] ?? "message", data: JSON.parse(fields["data"] ?? "{}") as JsonObject, id: fields["id"] };
}

async function* linesOf(response: Response): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split(/\r?\n/);
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } catch (error) {
    throw new Unreachable(`The stream of ${response.url} broke off.`, undefined, error);
  }
}
