// The console's only script. Pages work without it; it adds live updates, search as you type, keys and copy buttons.
"use strict";

// ---- Regions: parts of a page, marked data-region, that are replaced when the page is fetched again.

const parse = (html) => new DOMParser().parseFromString(html, "text/html");

// Whether a field was filled in since the page was loaded.
function isChanged(field) {
  if (field.matches("select")) return field.selectedIndex !== Math.max(0, [...field.options].findLastIndex((option) => option.defaultSelected));
  return field.matches("[type=checkbox], [type=radio]") ? field.checked !== field.defaultChecked : field.value !== field.defaultValue;
}

// A region that someone is working in stays as it is: an open form, a selected text, an open command.
function isBusy(region) {
  const focused = document.activeElement;
  if (focused && focused !== document.body && region.contains(focused) && focused.matches("input, select, textarea")) return true;
  if (region.querySelector("details[open], form[data-asked], form[data-sent]")) return true;
  if ([...region.querySelectorAll("input, select, textarea")].some(isChanged)) return true;
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && region.contains(selection.anchorNode));
}

// What a region is compared by. Tokens and idempotency keys differ in each response; alone they are no reason to replace it.
const comparable = (region) => region.dataset.same ?? region.outerHTML.replace(/name="_key" value="[^"]*"/g, "").replace(/ class="(here|arrived| )+"/g, "");

// What an element is found again by. Several marks of a drawing lead to the same place, so their texts count, too.
const traits = (element) => [element.localName, element.id, element.form?.id, element.getAttribute("href"), element.textContent.trim()];

// Move the focus from an element of a region to the one in its place in a fresh copy: without any, Tab would begin at the top of the page.
function refocus(element, region, shown) {
  const wanted = traits(element);
  const before = [...region.querySelectorAll(element.localName)], after = [...shown.querySelectorAll(element.localName)];
  const isLike = (count) => (other) => traits(other).slice(0, count).every((trait, number) => trait === wanted[number]);
  for (const count of [wanted.length, wanted.length - 1]) {
    const found = after.filter(isLike(count));
    if (found.length) return found[Math.min(before.filter(isLike(count)).indexOf(element), found.length - 1)].focus({ preventScroll: true });
  }
  // Not a neighboring button: the next key would do something else than meant.
  const near = element.matches("a") && after[Math.min(before.indexOf(element), after.length - 1)];
  if (!near) shown.tabIndex = -1;
  (near || shown).focus({ preventScroll: true });
}

// Replace the regions that `find` has a newer version of, by id. Return the ids of those that stay because they are busy.
function swap(find, keepBusy) {
  const busy = new Set();
  let arrived = 0;
  for (const region of document.querySelectorAll("[data-region]")) {
    const next = region.isConnected && find(region.id);
    if (!next || comparable(region) === comparable(next)) continue;
    if (keepBusy && isBusy(region)) { busy.add(region.id); continue; }
    const focused = region.contains(document.activeElement) ? document.activeElement : null;
    const known = new Set([...region.querySelectorAll("tbody tr")].map((row) => row.textContent.trim()));
    const shown = document.importNode(next, true);
    region.replaceWith(shown);
    if (keepBusy && known.size) for (const row of shown.querySelectorAll("tbody tr")) if (!known.has(row.textContent.trim())) { row.classList.add("arrived"); arrived += 1; }
    if (focused) refocus(focused, region, shown);
    if (region.id === "clock") startClock();
  }
  if (arrived) announce(arrived);
  return busy;
}

// ---- A tab belongs to one merchant and one session. It never shows anything of another.

const own = document.body.dataset;
const isOfThisPage = ({ body }) => body.dataset.merchant === own.merchant && body.dataset.session === own.session;

// Say why the page does not change any more. What was typed stays.
function refuse(text, href, action) {
  const notice = Object.assign(document.createElement("p"), { id: "refused", className: "flash bad", textContent: `${text} ` });
  notice.setAttribute("role", "alert");
  notice.append(Object.assign(document.createElement("a"), { href, textContent: action }));
  const known = document.getElementById("refused");
  known ? known.replaceWith(notice) : document.getElementById("main").prepend(notice);
}

// The session has ended. A page without anything typed leads to the sign-in form immediately, and from there back.
function leave(url) {
  if ([...document.querySelectorAll("main input, main select, main textarea")].some(isChanged)) return refuse("You are signed out here.", url, "Sign in");
  location.assign(url);
}

let generation = 0;
// Fetch the page, and show it. Returns whether it is still this session's.
async function load(url, { live = false } = {}) {
  const mine = ++generation;
  let response;
  try {
    response = await fetch(url, { headers: live ? { "X-Live": "1" } : {}, credentials: "same-origin" });
  } catch {
    return; // the sandbox is restarting; the live connection comes back and loads the page again
  }
  if (response.redirected && new URL(response.url).pathname === "/console/sign-in") return leave(response.url);
  if (!response.ok || mine !== generation) return;
  const fresh = parse(await response.text());
  if (!isOfThisPage(fresh)) return refuse("You signed in again since this page was opened, so it shows nothing new.", location.href, "Open it again");
  swap((id) => fresh.getElementById(id), live);
  return true;
}

// ---- Live updates: the server sends the regions of this page that have changed.

let source = null, retry = 1000, retryTimer = 0, busyTimer = 0;
const waiting = new Map();

// Show regions that were sent. Those that someone is working in wait, each in its newest version.
function show(sent) {
  for (const region of sent) waiting.set(region.id, region);
  const versions = [...waiting.values()];
  const busy = swap((id) => waiting.get(id) || versions.map((region) => region.querySelector(`#${CSS.escape(id)}`)).find(Boolean), true);
  for (const id of waiting.keys()) if (!busy.has(id)) waiting.delete(id);
  clearTimeout(busyTimer);
  if (waiting.size) busyTimer = setTimeout(show, 1000, []);
}

// Screen readers hear how many rows are new, and that at most every ten seconds, instead of each row.
let arrivals = 0, announceTimer = 0;
function announce(count) {
  arrivals += count;
  announceTimer ||= setTimeout(() => {
    document.getElementById("news").textContent = `${arrivals} new or changed ${arrivals === 1 ? "row" : "rows"}`;
    arrivals = announceTimer = 0;
  }, document.getElementById("news").textContent ? 10000 : 500);
}

function listen() {
  source?.close();
  source = null;
  clearTimeout(retryTimer);
  // A browser has few connections to a host, which many tabs would use up: a tab that nobody sees gives its one back.
  if (!own.live || document.hidden || (!own.refresh && !isTailOpen())) return;
  const asked = new URLSearchParams({ session: own.session });
  if (own.refresh) asked.set("page", location.pathname + location.search);
  if (isTailOpen()) asked.set("tail", own.tail);
  const mine = source = new EventSource(`${own.live}?${asked}`);
  mine.addEventListener("regions", (event) => {
    retry = 1000;
    own.listening = "yes";
    // The first message comes with the connection: what changed since the page was built may be missing in it.
    show([...parse(JSON.parse(event.data)).body.children]);
  });
  // The session has ended, which leads to the sign-in form; or it was prolonged in another tab.
  mine.addEventListener("ended", async () => { mine.close(); if (await load(location.href, { live: true })) listen(); });
  mine.addEventListener("error", () => {
    if (mine.readyState !== EventSource.CLOSED || mine !== source) return;
    load(location.href, { live: true }); // says so if the session has ended
    retryTimer = setTimeout(listen, retry);
    retry = Math.min(30000, retry * 2);
  });
}

// The tail in the header: what happened last, on every page, while it is open.
const tail = document.getElementById("tail-box");
const isTailOpen = () => Boolean(tail?.open);
if (tail) {
  document.getElementById("tail").dataset.region = "";
  tail.open = sessionStorage.getItem("tail") === "open";
  tail.addEventListener("toggle", () => { sessionStorage.setItem("tail", tail.open ? "open" : ""); listen(); });
}
document.addEventListener("visibilitychange", listen);
addEventListener("pagehide", () => source?.close());

// ---- The clock in the header runs with the merchant's clock.

let ticking = 0;
function startClock() {
  clearInterval(ticking);
  const clock = document.getElementById("clock");
  if (!clock || clock.dataset.frozen === "true") return;
  const time = clock.querySelector("time");
  if (!clock.dataset.loaded) clock.dataset.loaded = String(Date.now());
  const start = Date.parse(clock.dataset.now) - Number(clock.dataset.loaded);
  ticking = setInterval(() => { time.textContent = new Date(start + Date.now()).toISOString().slice(0, 19).replace("T", " "); }, 1000);
}

// ---- Forms: search as you type, fragments while a form is filled in, questions before dangerous actions, once only.

function debounce(run, milliseconds) {
  let waiting = 0;
  return (...given) => { clearTimeout(waiting); waiting = setTimeout(() => run(...given), milliseconds); };
}

const search = debounce(async (form) => {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  const url = form.action.split(/[?#]/)[0] + (query.size ? `?${query}` : "");
  history.replaceState(null, "", url);
  await load(url);
  listen(); // to the page as it is now
}, 200);

const fetchFragment = debounce(async (form) => {
  const target = document.getElementById(`fragment-${form.dataset.fragment}`);
  if (!target) return;
  const mine = (form.fragmentNumber = (form.fragmentNumber || 0) + 1);
  const fields = new URLSearchParams([...new FormData(form)].filter(([, value]) => typeof value === "string"));
  const response = await fetch(`${own.home}/fragments/${form.dataset.fragment}`, { method: "POST", body: fields });
  if (response.status === 403) return load(location.href, { live: true });
  if (!response.ok || mine !== form.fragmentNumber) return;
  const fresh = parse(await response.text()).body;
  // Parts belong elsewhere in the page: errors beside fields, for example.
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const known = document.getElementById(part.id);
    part.remove();
    if (!known || known.innerHTML === part.innerHTML) continue;
    known.replaceChildren(...[...part.childNodes].map((node) => document.adoptNode(node)));
    const field = known.matches(".error") && form.querySelector(`[aria-describedby~="${CSS.escape(part.id)}"]`);
    if (field) known.textContent ? field.setAttribute("aria-invalid", "true") : field.removeAttribute("aria-invalid");
  }
  if (fresh.innerHTML !== target.innerHTML) target.replaceChildren(...[...fresh.childNodes].map((node) => document.adoptNode(node)));
}, 250);

// The commands below a form follow its fields while they are shown.
const fetchCommand = debounce(async (form) => {
  const place = form.querySelector(".as-command .commands");
  if (!place?.closest("details").open) return;
  const mine = (form.commandNumber = (form.commandNumber || 0) + 1);
  const fields = new URLSearchParams([...new FormData(form)].filter(([, value]) => typeof value === "string"));
  fields.set("_operation", form.dataset.command);
  const response = await fetch(`${own.home}/fragments/command`, { method: "POST", body: fields });
  if (!response.ok || mine !== form.commandNumber) return;
  place.replaceChildren(...[...parse(await response.text()).body.childNodes].map((node) => document.adoptNode(node)));
}, 250);

document.addEventListener("toggle", (event) => {
  const form = event.target.closest("form[data-command]");
  if (form) fetchCommand(form);
}, true);

// A choice fills in other fields: data-fill has their values. A value that begins with "…" replaces the end of an account number.
// Fields that only the choice before filled in get their values back.
function fill(form, values) {
  for (const [field, [before, after]] of form.filled || []) if (field.value === after) field.value = before;
  form.filled = new Map();
  for (const [name, value] of Object.entries(values)) {
    const field = form.elements.namedItem(name);
    if (!field) continue;
    const before = field.value;
    field.value = value.startsWith("…") ? withEnd(before, value.slice(1)) : value;
    form.filled.set(field, [before, field.value]);
  }
}

function withEnd(account, end) {
  const found = account.slice(0, -end.length) + end;
  if (!/^PK[0-9]{2}[A-Z0-9]{20}$/.test(found)) return found;
  // An IBAN gets the check digits of its new end: ISO/IEC 7064, MOD 97-10.
  let rest = 0;
  for (const character of `${found.slice(4)}PK00`) rest = Number(`${rest}${parseInt(character, 36)}`) % 97;
  return `PK${String(98 - rest).padStart(2, "0")}${found.slice(4)}`;
}

document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (form && event.target.dataset.fill) fill(form, JSON.parse(event.target.dataset.fill));
  if (form?.matches("[data-search]") && event.target.name) search(form);
  if (form?.dataset.fragment) fetchFragment(form);
  if (form?.dataset.command) fetchCommand(form);
});

document.addEventListener("change", async (event) => {
  const field = event.target;
  // A file is read into the text area that it fills, so that it can be checked and changed before it is sent.
  if (field.matches("input[type=file][data-into]") && field.files.length) {
    const target = document.getElementById(field.dataset.into);
    target.value = await field.files[0].text();
    target.dispatchEvent(new Event("input", { bubbles: true }));
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") {
    for (const field of form.querySelectorAll("input, select")) if (field.value === "") field.disabled = true;
    setTimeout(() => { for (const field of form.querySelectorAll("input, select")) field.disabled = false; });
    return;
  }
  if (form.dataset.confirm && !form.dataset.confirmed) {
    event.preventDefault();
    form.dataset.asked = "yes";
    ask(form.dataset.confirm, () => { form.dataset.confirmed = "yes"; form.requestSubmit(event.submitter); }, () => { delete form.dataset.asked; });
    return;
  }
  // A second click does nothing. The idempotency key in the form protects even without this script.
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => { for (const form of document.forms) { delete form.dataset.sent; delete form.dataset.confirmed; } });

function ask(question, proceed, end) {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  text.textContent = question;
  text.id = "question";
  dialog.setAttribute("aria-labelledby", "question");
  const buttons = document.createElement("div");
  buttons.className = "buttons";
  const yes = Object.assign(document.createElement("button"), { textContent: "Yes", className: "main", type: "button" });
  const no = Object.assign(document.createElement("button"), { textContent: "Cancel", type: "button" });
  yes.addEventListener("click", () => { dialog.close(); proceed(); });
  no.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { dialog.remove(); end(); });
  buttons.append(yes, no);
  dialog.append(text, buttons);
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
}

// ---- Copy buttons, and menus that close.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: button.dataset.copy });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

// ---- Drawings: what a mark says is shown below them while it is pointed at or has the focus.

for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const mark = event.target.closest?.("svg a");
    const detail = mark?.closest("[data-region]")?.querySelector(".trace-detail");
    if (detail) detail.textContent = mark.querySelector("title").textContent;
  });
}

// ---- Keys.

let isGoing = false;
function move(step) {
  const rows = [...document.querySelectorAll("main tbody tr")];
  if (rows.length === 0) return;
  const now = rows.findIndex((row) => row.classList.contains("here"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, now + step))];
  for (const row of rows) row.classList.remove("here");
  next.classList.add("here");
  (next.querySelector("[data-open]") || next.querySelector("a") || next).focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

const keys = {
  "?": () => document.getElementById("keys").showModal(),
  "/": () => (document.querySelector("main input[type=search]") || document.querySelector("main input:not([type=hidden])"))?.focus(),
  f: () => document.getElementById("find")?.focus(),
  n: () => document.querySelector("[data-new]")?.click(),
  t: () => tail?.querySelector("summary").click(),
  j: () => move(1),
  k: () => move(-1),
  "]": () => document.querySelector('[data-page="next"]')?.click(),
  "[": () => document.querySelector('[data-page="first"]')?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
    if (event.target.matches("input, textarea, select")) event.target.blur();
    return;
  }
  if (event.target.matches("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
  if (isGoing) {
    isGoing = false;
    const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  if (event.key === "g") { isGoing = true; setTimeout(() => { isGoing = false; }, 1500); return; }
  const act = keys[event.key];
  if (act) { event.preventDefault(); act(); }
});

// A form can show its page again. The address is then the page's too, so that reloading and live updates fetch the page.
if (location.pathname.startsWith(`${own.home}/actions/`)) history.replaceState(null, "", document.body.dataset.page);

// On a phone, the sections and the tabs are each one line that scrolls. Not scrollIntoView: the first Tab would then start from there.
for (const current of document.querySelectorAll(":is(.side, .tabs) [aria-current]")) {
  const line = current.closest(".side, .tabs");
  line.scrollLeft = current.offsetLeft - line.offsetLeft - (line.clientWidth - current.offsetWidth) / 2;
}
startClock();
listen();
