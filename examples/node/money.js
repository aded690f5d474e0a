// Amounts of money: whole paisa (minor units) inside the shop, text with two decimals outside.

/** Return an amount such as "12.50" in paisa. Throws a RangeError for what is not one: a JSON number is not exact. */
export function toMinor(text) {
  const found = typeof text === "string" && /^(\d{1,12})(?:\.(\d{1,2}))?$/.exec(text);
  const minor = found ? Number(found[1]) * 100 + Number((found[2] ?? "").padEnd(2, "0")) : 0;
  if (minor <= 0) throw new RangeError(`not an amount: ${JSON.stringify(text)}`);
  return minor;
}

/** Return an amount in paisa as text. */
export function toText(minor) {
  const sign = minor < 0 ? "-" : "";
  return `${sign}${Math.floor(Math.abs(minor) / 100)}.${String(Math.abs(minor) % 100).padStart(2, "0")}`;
}
