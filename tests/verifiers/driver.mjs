// Read cases from standard input, one a line, and print `accepted` or `refused` for each. See test_docs_verifiers.py.
import { readFileSync } from "node:fs";
import { isValid } from "./verify.mjs";

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const [secrets, now, body, ...pairs] = line.split("\t").map((field) => Buffer.from(field, "base64"));
  const headers = {};
  for (let i = 0; i < pairs.length; i += 2) headers[pairs[i].toString()] = pairs[i + 1].toString();
  console.log(isValid(secrets.toString().split(" "), headers, body, Number(now)) ? "accepted" : "refused");
}
