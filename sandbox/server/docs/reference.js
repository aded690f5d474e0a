// The API reference: search, copy buttons, and calls of this sandbox. All texts from responses are shown as text, never as HTML.
"use strict";

(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const create = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // ------------------------------------------------------------------------------------------------ search

  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const cards = all("details.card");
  const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase().replaceAll(/\s+/g, " ")]));
  const links = new Map(all("nav li a").map((link) => [link.hash.slice(1), link.parentElement]));

  let opened = [];

  function openAll(isOpen) {
    for (const card of cards.filter((one) => !one.hidden)) card.open = isOpen;
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const matches = words.every((word) => texts.get(card).includes(word));
      card.hidden = !matches;
      links.get(card.id).hidden = !matches;
      shown += matches;
    }
    for (const group of all("[data-group]")) {
      const isEmpty = !all("details.card", group).some((card) => !card.hidden);
      group.hidden = isEmpty;
      for (const entry of all(`[data-entry="${group.dataset.group}"]`)) entry.hidden = isEmpty;
    }
    for (const other of all("[data-other]")) other.hidden = words.length > 0;
    // A few results need no more clicks.
    for (const card of opened) card.open = false;
    opened = words.length && shown <= 3 ? cards.filter((card) => !card.hidden && !card.open) : [];
    for (const card of opened) card.open = true;
    found.textContent = words.length ? `${shown} of ${cards.length} operations` : "";
  }

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      search.value = "";
      filter();
    }
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    }
  });
  document.getElementById("open-all").addEventListener("click", () => openAll(true));
  document.getElementById("close-all").addEventListener("click", () => openAll(false));

  // A link to an operation opens it, even if the search hides it.
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) {
      search.value = "";
      filter();
    }
    if (target.matches("details.card")) target.open = true;
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  all("nav a[href^='#']").forEach((link) => link.addEventListener("click", () => { if (link.hash === location.hash) follow(); }));

  // ------------------------------------------------------------------------------------------------ copy

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function addCopyButton(pre) {
    const button = create("button", { type: "button", className: "copy", textContent: "Copy" });
    button.addEventListener("click", () => {
      getSelection().selectAllChildren(pre);
      copy(pre.textContent, button);
    });
    const box = create("div", { className: "code" });
    pre.replaceWith(box);
    box.append(pre, button);
  }

  all("pre").forEach(addCopyButton);

  // ------------------------------------------------------------------------------------------------ try it

  let document_ = null;
  const source = document.querySelector("main").dataset.document;
  const openapi = () => (document_ ??= fetch(source).then((response) => response.json()));

  function resolve(root, node) {
    return node.$ref ? node.$ref.slice(2).split("/").reduce((at, part) => at[part], root) : node;
  }

  function uuid() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  function field(label, control) {
    return create("label", { className: "field" }, create("span", { textContent: label }), control);
  }

  async function buildForm(card, box) {
    const root = await openapi();
    const { method, path } = card.dataset;
    const operation = root.paths[path][method.toLowerCase()];
    const parameters = (operation.parameters ?? []).map((parameter) => resolve(root, parameter));
    const example = operation.requestBody?.content?.["application/json"]?.example;
    const form = create("form", { className: "try-form" });
    const inputs = [];
    for (const parameter of parameters.filter((one) => one.in !== "header")) {
      const input = create("input", { required: parameter.in === "path", autocomplete: "off", spellcheck: false });
      inputs.push([parameter, input]);
      form.append(field(`${parameter.name} (${parameter.in})`, input));
    }
    const body = create("textarea", { rows: 8, spellcheck: false, value: JSON.stringify(example ?? {}, null, 2) });
    if (operation.requestBody) form.append(field("Body", body));
    const needsKey = parameters.some((one) => one.name === "X-IDEMPOTENCY-KEY");
    const send = create("button", { type: "submit", textContent: "Send" });
    const warning = method === "GET" ? "" : "This changes the data of your sandbox.";
    const output = create("div", { className: "output" });
    output.setAttribute("role", "status");
    form.append(create("p", {}, send, create("span", { className: "quiet", textContent: ` ${warning}` })), output);

    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      let target = path;
      const query = new URLSearchParams();
      for (const [parameter, input] of inputs) {
        if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
        else if (input.value) query.set(parameter.name, input.value);
      }
      const headers = {};
      const scheme = Object.keys(operation.security[0] ?? {})[0];
      const key = document.getElementById(scheme === "OperatorKey" ? "operator-key" : "merchant-key").value.trim();
      if (scheme && key) headers[root.components.securitySchemes[scheme].name] = key;
      if (needsKey) headers["X-IDEMPOTENCY-KEY"] = uuid();
      if (operation.requestBody) headers["Content-Type"] = "application/json";
      send.disabled = true;
      output.textContent = "Sending …";
      await show(target + (query.size ? `?${query}` : ""), {
        method, headers, body: operation.requestBody ? body.value : undefined, credentials: "omit", cache: "no-store",
      }, output);
      send.disabled = false;
    });
    box.replaceChildren(form);
    form.querySelector("input, textarea, button").focus();
  }

  async function show(url, options, output) {
    try {
      const response = await fetch(url, options);
      const text = await response.text();
      let shown = text;
      try {
        shown = JSON.stringify(JSON.parse(text), null, 2);
      } catch { /* not JSON: shown as it is */ }
      const pre = create("pre", { textContent: shown || "(no body)", tabIndex: 0 });
      const kind = response.ok ? "good" : "bad";
      const status = create("span", { className: `status ${kind}`, textContent: response.status });
      output.replaceChildren(create("p", {}, status, ` ${options.method} ${url}`), pre);
      addCopyButton(pre);
    } catch (error) {
      output.textContent = `No answer: ${error.message}`;
    }
  }

  // An upload needs a file, and a stream does not end: for these, use the command.
  for (const card of cards.filter((one) => one.dataset.try === "yes")) {
    const button = create("button", { type: "button", className: "try", textContent: "Try it" });
    const box = create("div");
    button.addEventListener("click", async () => {
      if (box.childElementCount) {
        box.replaceChildren();
        return;
      }
      button.disabled = true;
      await buildForm(card, box).catch((error) => { box.textContent = `The form cannot be shown: ${error.message}`; });
      button.disabled = false;
    });
    card.querySelector(".inside").append(create("p", {}, button), box);
  }

  // On a phone, the list of contents is longer than the window.
  if (matchMedia("(max-width: 61.99rem)").matches) document.querySelector("nav details").open = false;
  for (const tools of all(".tools")) tools.hidden = false;
  if (search.value) filter();
  if (location.hash) follow();
})();
