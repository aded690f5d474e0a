import type { CatalogueEntry, NewMerchant } from "../generated/models.js";
import { Client, ProblemError, PspError } from "../index.js";
import { type Address, findSandbox } from "./start.js";

const TIMEOUT_MS = 60_000;
/** Few, because a fault may be meant to hit every attempt. */
const RETRIES = 2;
const NO_OPERATOR = "Pass the operator's key of this sandbox in PSP_ADMIN_KEY.";

/** The sandbox of this run, and what all tests of this process share. */
export class Sandbox {
  readonly address: Address;
  readonly client: Client;
  /** The built-in scenarios by name, once a test has needed them. */
  readonly catalogue = new Map<string, CatalogueEntry>();

  private constructor(address: Address) {
    this.address = address;
    this.client = new Client({ url: address.url, adminKey: address.adminKey, timeoutMs: TIMEOUT_MS, retries: RETRIES });
  }

  static #only: Promise<Sandbox> | undefined;

  /** Return the sandbox, and start it if no test of this run has needed it yet. Throws a PspError that says how to get one. */
  static get(): Promise<Sandbox> {
    return (Sandbox.#only ??= findSandbox().then((address) => new Sandbox(address)));
  }

  /** Create a merchant. Throws a PspError, which says how to pass the operator's key. */
  async createMerchant(body: { name: string }): Promise<NewMerchant> {
    try {
      return await this.client.merchants.create(body);
    } catch (error) {
      if (!(error instanceof ProblemError) || ![401, 403].includes(error.status)) throw error;
      throw new PspError(`${this.client.url} does not accept the operator's key. ${NO_OPERATOR} (${error.message})`);
    }
  }

  /** Delete a merchant. If the sandbox ends with this run anyway, that happens while the next test runs. */
  async deleteMerchant(merchantId: string): Promise<void> {
    // It may be gone already, and a sandbox that has ended needs no deletion.
    const deleted = this.client.merchants.delete(merchantId).catch(() => {});
    if (!this.address.isOurs) await deleted;
  }
}

