// The theme puts the copy button of each code block into a <nav>: many landmarks with the same name. Make them plain groups.
new MutationObserver(() => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) nav.setAttribute("role", "presentation");
}).observe(document.body, { childList: true, subtree: true });
