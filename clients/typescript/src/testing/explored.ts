import { PspError } from "../errors.js";

/** A payout in the books of an application. `spent` is what has left for it, net of what came back. */
export interface BooksRow {
  reference: string;
  status: string;
  amount: string;
  spent?: string;
}

/** Returns what the application believes. */
export type Books = () => readonly BooksRow[] | Promise<readonly BooksRow[]>;

const URL_VARIABLE = "PSP_EXPLORE_URL";
/** A merchant comes to rest while days pass for it. */
export const REST_MS = 120_000;

/** Whether `psp explore --own-merchants` runs these tests. */
export function isExplored(): boolean {
  return URL_VARIABLE in process.env;
}

/** Say that a test begins. Returns a key for the test's own calls, which are so told apart from the application's. */
export async function begin(test: string, apiKey: string): Promise<string> {
  const answer = await tell<{ api_key: string }>("/begin", { test, api_key: apiKey });
  return answer.api_key;
}

/** Say that a test ends, and wait until its merchant is at rest and the books are compared. The application still runs. */
export async function rest(
  apiKey: string,
  failure: string | null,
  urls: { booksUrl: string | null; restartUrl: string | null },
): Promise<void> {
  await tell("/rest", { api_key: apiKey, failure, books_url: urls.booksUrl, restart_url: urls.restartUrl });
}

async function tell<T>(path: string, told: object): Promise<T> {
  const init = { method: "POST", body: JSON.stringify(told), signal: AbortSignal.timeout(REST_MS) };
  const response = await fetch(`${process.env[URL_VARIABLE]}${path}`, init);
  const answer = (await response.json()) as T & { detail?: string };
  if (!response.ok) throw new PspError(`psp explore: ${answer.detail}`);
  return answer;
}
