/** Return query parameters. Arrays become comma-separated, objects `name[key]`; undefined and null are left out. */
export function queryString(parameters: object): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null) continue;
    if (typeof value === "object" && !Array.isArray(value) && !(value instanceof Date)) {
      for (const [key, item] of Object.entries(value)) found.set(`${name}[${key}]`, text(item));
    } else {
      found.set(name, (Array.isArray(value) ? value : [value]).map(text).join(","));
    }
  }
  const joined = found.toString();
  return joined && `?${joined}`;
}

function text(value: unknown): string {
  return value instanceof Date ? value.toISOString() : String(value);
}
