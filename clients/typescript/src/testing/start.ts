import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, closeSync, constants, existsSync, lstatSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { isMainThread } from "node:worker_threads";
import { PspError } from "../errors.js";

const PACKAGE = "psp-sandbox";
/** The Python package of that name has the sandbox itself as an extra. */
const SERVER = `${PACKAGE}[server]`;
const IMAGE = "psp-sandbox:all-in-one";
const ENGINES = ["docker", "podman"];
/** The first start by `uvx` or `pipx` downloads packages. */
export const START_MS = 300_000;
const POLL_MS = 50;
const LOG_CHARACTERS = 6000;
const UP = ["up", "--ephemeral", "--no-seed"];
/**
 * Runs a command until it ends or the process `$1` does, and then removes the folder `$2`, which has keys. If the command ends first,
 * the folder stays, because it says why. The process that starts a sandbox may end much earlier than the one that owns the run.
 */
const WATCH = `
  owner=$1 folder=$2
  shift 2
  "$@" & command=$!
  while kill -0 $owner && kill -0 $command; do sleep 1; done 2> /dev/null
  kill $command 2> /dev/null
  wait $command
  kill -0 $owner 2> /dev/null || rm -rf "$folder"`;
const HOW = `Do one of these:
  - install it: pipx install '${SERVER}' (or: uv tool install '${SERVER}') puts psp on the PATH
  - install uv or pipx, which run it without an installation
  - build the image: docker build --target all-in-one -t ${IMAGE} . in a clone of the sandbox
  - start one yourself, with psp up or in a container, and set PSP_URL and PSP_ADMIN_KEY`;

/** A running sandbox. */
export interface Address {
  url: string;
  /** The operator's key; without one, PSP_ADMIN_KEY or the default of `psp up` applies. */
  adminKey?: string | undefined;
  /** How it was started, for people. */
  startedBy: string;
  /** Whether it ends with this run. */
  isOurs: boolean;
  /** The name by which it reaches this process. */
  receiverHost: string;
}

/** How a sandbox is started: a command, with what is known of it beforehand. */
interface Way {
  about: string;
  command: string[];
  env?: Record<string, string>;
  /** What the ready file will say, if the command does not write one. */
  ready?: { api_url: string; admin_key: string };
  receiverHost?: string;
}

/**
 * Return the sandbox of this run: that of PSP_URL, or else one that all test processes of the run share.
 *
 * The first that needs it starts it. It outlives that process, and ends with the process that owns the run. Throws a PspError that
 * says how to get one.
 */
export async function findSandbox(): Promise<Address> {
  const url = process.env["PSP_URL"];
  if (url) return { url, startedBy: "PSP_URL", isOurs: false, receiverHost: "127.0.0.1" };
  const owner = runOwner();
  const folder = folderOf(owner);
  const hasStarted = !existsSync(folder) && (await start(owner, folder));
  const found = await ready(folder);
  if (hasStarted) process.stderr.write(`PSP Sandbox: ${found.url} runs until these tests end, started by ${found.startedBy}.\n`);
  return found;
}

/**
 * Return the process that runs all tests, with which the sandbox ends.
 *
 * Vitest and Jest run tests in processes that they fork and end early, or in threads, or in the main process itself.
 */
function runOwner(): number {
  return isMainThread && process.send ? process.ppid : process.pid;
}

/** Return the folder that the test processes of a run share. A later process with the same id has another one. */
function folderOf(owner: number): string {
  const shared = join(tmpdir(), `psp-sandbox-node-${process.getuid?.() ?? 0}`);
  mkdirSync(shared, { recursive: true, mode: 0o700 });
  const found = lstatSync(shared);
  if (!found.isDirectory() || (process.getuid && found.uid !== process.getuid())) {
    throw new PspError(`${shared} belongs to somebody else, so the sandbox's keys would not be safe there. Set TMPDIR.`);
  }
  return join(shared, `${owner}-${startOf(owner)}`);
}

/** Return when a process began, in a form that no other process with its id has. */
function startOf(pid: number): string {
  try {
    // The command in the second field can contain anything, but no later field has a closing bracket.
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(")").at(-1)?.trim().split(" ")[19] ?? "";
  } catch {
    return run("ps", ["-o", "lstart=", "-p", String(pid)]).stdout.trim().replace(/\W+/g, "-");
  }
}

/** Start a sandbox, and return whether it was this process that did: another one can be faster. */
async function start(owner: number, folder: string): Promise<boolean> {
  const way = await chooseWay(join(folder, "ready.json"));
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
  // Nothing is awaited from here on, so this process cannot leave the others waiting for a command that it never ran.
  const { DATABASE_URL: _, REDIS_URL: __, ...env } = process.env; // those of the project under test
  const log = openSync(join(folder, "log"), "w", 0o600);
  const child = spawn("sh", ["-c", WATCH, "sh", String(owner), folder, ...way.command], {
    detached: true, // Ctrl-C must not stop it before the tests have ended
    env: { ...env, ...way.env },
    stdio: ["ignore", log, log],
  });
  child.on("error", () => {}); // it has no pid then
  child.unref();
  closeSync(log);
  writeFileSync(join(folder, "way.json"), JSON.stringify({ ...way, pid: child.pid ?? 0 }), { mode: 0o600 });
  if (way.ready) writeFileSync(join(folder, "ready.json"), JSON.stringify(way.ready), { mode: 0o600 });
  return true;
}

async function ready(folder: string): Promise<Address> {
  const ends = performance.now() + START_MS;
  for (;;) {
    const isLast = performance.now() > ends;
    const way = readJson<Way & { pid: number }>(join(folder, "way.json"));
    const found = readJson<{ api_url: string; admin_key: string }>(join(folder, "ready.json"));
    if (way && found && (await answers(found.api_url))) {
      const { about, receiverHost = "127.0.0.1" } = way;
      return { url: found.api_url, adminKey: found.admin_key, startedBy: about, isOurs: true, receiverHost };
    }
    if (isLast || (way && !isAlive(way.pid))) {
      const log = existsSync(join(folder, "log")) ? readFileSync(join(folder, "log"), "utf8").slice(-LOG_CHARACTERS) : "";
      throw new PspError(
        `The sandbox did not start${way ? ` with ${way.about}` : ""}. It printed:\n\n${log.trim() || "(nothing)"}\n\n${HOW}`,
      );
    }
    await pause(POLL_MS);
  }
}

/** Return how to start a sandbox on this machine. Throws a PspError that says how to get one. */
async function chooseWay(readyFile: string): Promise<Way> {
  const direct = [...UP, "--port", "0", "--ipn-port", "0", "--ready-file", readyFile];
  const [psp, uvx, pipx] = ["psp", "uvx", "pipx"].map(onPath);
  if (psp) return { about: `${psp} (psp on the PATH)`, command: [psp, ...direct] };
  if (uvx) return { about: `uvx --from ${SERVER} psp`, command: [uvx, "--from", SERVER, "psp", ...direct] };
  if (pipx) return { about: `pipx run --spec ${SERVER} psp`, command: [pipx, "run", "--spec", SERVER, "psp", ...direct] };
  for (const engine of ENGINES) {
    const program = onPath(engine);
    if (program && run(program, ["image", "inspect", IMAGE]).status === 0) return inContainer(program, engine);
  }
  throw new PspError(
    `There is no sandbox, and no way to start one: neither psp nor uvx nor pipx is on the PATH, and no container engine has the ` +
      `image ${IMAGE}. ${HOW}`,
  );
}

async function inContainer(program: string, engine: string): Promise<Way> {
  const [port, ipnPort] = [await freePort(), await freePort()];
  const adminKey = `ak_${randomBytes(24).toString("hex")}`;
  // Webhooks go to 127.0.0.1 of this machine. Only on Linux can a container share it; Docker Desktop has a name for it.
  const isShared = process.platform === "linux";
  // The image allows any name of a host, which a sandbox that listens on this machine's own loopback refuses.
  const network = isShared ? ["--network=host", "-e", "SANDBOX_ALLOWED_HOSTS=127.0.0.1"] : ["-p", `127.0.0.1:${port}:8000`];
  const command = isShared ? ["psp", ...UP, "--port", String(port), "--ipn-port", String(ipnPort)] : [];
  const words = [program, "run", "--rm", ...network, "-e", "SANDBOX_ADMIN_KEY", IMAGE, ...command];
  return {
    about: `${engine} run ${IMAGE}`,
    command: words,
    env: { SANDBOX_ADMIN_KEY: adminKey },
    ready: { api_url: `http://127.0.0.1:${port}`, admin_key: adminKey },
    receiverHost: isShared ? "127.0.0.1" : "host.docker.internal",
  };
}

function onPath(program: string): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter).filter(Boolean);
  return folders.map((folder) => join(folder, program)).find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function run(program: string, parameters: string[]): SpawnSyncReturns<string> {
  return spawnSync(program, parameters, { encoding: "utf8", timeout: 10_000, stdio: ["ignore", "pipe", "ignore"] });
}

function isAlive(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function answers(url: string): Promise<boolean> {
  return fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(5000) }).then((response) => response.ok, () => false);
}

function readJson<T>(path: string): T | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as T;
  } catch {
    return undefined; // it does not exist yet, or not all of it
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
