import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const EMPTY = { sellers: {}, payouts: {}, events: [] };

/** Return where the data is. PSP_RUN_DIR is an empty folder, which `psp explore` gives to each run. */
export function fileOf(env) {
  return env.SHOP_FILE ?? join(env.PSP_RUN_DIR ?? ".", "shop.json");
}

/** The shop's data: one JSON file, which a change replaces as a whole or not at all. */
export class Store {
  constructor(path) {
    this.path = path;
    try {
      this.data = JSON.parse(readFileSync(path, "utf8"));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      this.data = EMPTY;
    }
  }

  /** Run a function that changes the data, and return its result. If it throws, or the file cannot be written, nothing changes. */
  change(apply) {
    const next = structuredClone(this.data);
    const result = apply(next);
    writeFileSync(`${this.path}.new`, JSON.stringify(next));
    renameSync(`${this.path}.new`, this.path);
    this.data = next;
    return result;
  }
}
