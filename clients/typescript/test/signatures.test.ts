import { readFileSync } from "node:fs";
import { isValidWebhook } from "psp-sandbox";
import { describe, expect, test } from "vitest";

interface Vector {
  name: string;
  signing: string;
  secrets: string[];
  headers: Record<string, string>;
  body: string;
  timestamp: number;
  now: number;
}

const [valid, invalid] = ["v1", "invalid"].map(read) as [Vector[], Vector[]];

function read(name: string): Vector[] {
  return JSON.parse(readFileSync(new URL(`../../../openapi/webhooks/${name}.json`, import.meta.url), "utf8")) as Vector[];
}

describe.each(valid)("the vector $name", ({ secrets, headers, body, timestamp }) => {
  test.each([0, 300, -300])("is valid %d s later", (seconds) => {
    expect(isValidWebhook(secrets, headers, body, timestamp + seconds)).toBe(true);
  });

  test.each([301, -301])("is not valid %d s later", (seconds) => {
    expect(isValidWebhook(secrets, headers, body, timestamp + seconds)).toBe(false);
  });

  test("is valid for each secret of a rotation, and for no other", () => {
    for (const secret of secrets) expect(isValidWebhook(secret, headers, body, timestamp)).toBe(true);
    expect(isValidWebhook(`whsec_${Buffer.alloc(32).toString("base64")}`, headers, body, timestamp)).toBe(false);
  });
});

test.each(invalid.filter((one) => one.signing === "v1"))("$name is refused", ({ secrets, headers, body, now }) => {
  expect(isValidWebhook(secrets, headers, body, now)).toBe(false);
});

test.each(["9".repeat(400), "1e400", "NaN", "yesterday", "-1", ""])("the timestamp %s is refused", (stamp) => {
  const [one] = valid as [Vector, ...Vector[]];
  expect(isValidWebhook(one.secrets, { ...one.headers, "webhook-timestamp": stamp }, one.body, one.timestamp)).toBe(false);
});
