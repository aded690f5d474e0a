import type { Payout, Problem, TimelineEntry } from "./generated/models.js";

/** The base of all errors of this client. */
export class PspError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** The sandbox refused the call. Each code has a subclass. */
export class ProblemError extends PspError {
  /** What went wrong, such as INSUFFICIENT_BALANCE. */
  readonly code: string;
  readonly status: number;
  readonly title: string;
  /** What is wrong with this request. */
  readonly detail: string;
  /** The fields that are not valid. Empty unless the code is VALIDATION_ERROR. */
  readonly errors: readonly { field: string; message: string }[];
  /** The id that the sandbox's journal and logs have of this request. */
  readonly requestId: string;

  constructor(problem: Problem) {
    super(describe(problem));
    this.code = problem.code;
    this.status = problem.status;
    this.title = problem.title;
    this.detail = problem.detail;
    this.errors = problem.errors ?? [];
    this.requestId = problem.request_id;
  }
}

function describe(problem: Problem): string {
  const text = problem.detail || problem.title;
  // The detail names most fields that are not valid, without the full stop.
  const unnamed = (problem.errors ?? []).filter((one) => !text.includes(`${one.field}: ${one.message.replace(/\.$/, "")}`));
  const fields = unnamed.map((one) => `\n  ${one.field}: ${one.message}`).join("");
  return `${problem.status} ${problem.code}: ${text}${fields} (request id ${problem.request_id || "unknown"})`;
}

/** No answer came. A write may or may not have happened: call it again with the same idempotency key to find out. */
export class Unreachable extends PspError {
  constructor(
    message: string,
    /** The key to repeat the write with. */
    readonly idempotencyKey: string | undefined,
    cause: unknown,
  ) {
    super(message, { cause });
  }
}

/** The answer is not what this client understands, for example because something else answers at this URL. */
export class UnexpectedResponse extends PspError {}

/** A payout reached a final status, which is none of the awaited ones. */
export class NotReached extends PspError {
  constructor(
    readonly payout: Payout,
    readonly statuses: readonly string[],
    readonly timeline: readonly TimelineEntry[],
    reason: string,
  ) {
    const path = timeline.map((entry) => entry.to).join(" -> ");
    const code = payout.failure_code ? ` (${payout.failure_code})` : "";
    super(`Payout ${payout.id} is ${payout.status}${code}, not ${statuses.join(" or ")}: ${reason} Its statuses: ${path}.`);
  }
}

/** A payout did not reach any of the statuses in time. */
export class WaitTimeout extends NotReached {}
