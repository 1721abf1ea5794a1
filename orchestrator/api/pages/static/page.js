// What makes pages nicer. All of it can be done without: by links, forms, and loading a page again.
"use strict";

(() => {
  // ---- keys

  const typing = (element) => element.matches("input, textarea, select, [contenteditable]");
  const rows = () => [...document.querySelectorAll("[data-open]")];

  function step(by) {
    const found = rows();
    if (!found.length) return;
    const at = found.findIndex((link) => link.closest("tr")?.contains(document.activeElement));
    found[at < 0 ? (by > 0 ? 0 : found.length - 1) : Math.min(Math.max(at + by, 0), found.length - 1)].focus();
  }

  function search() {
    const box = document.querySelector("[data-search]") ?? document.querySelector("[data-find]");
    box?.focus();
    box?.select();
  }

  const dialog = () => document.getElementById("keys");
  const KEYS = { "/": search, j: () => step(1), k: () => step(-1), "?": () => dialog().showModal() };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const act = KEYS[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });

  // ---- times: "5 min ago" becomes "6 min ago"; the same words as the server's

  const UNITS = [[86400000, "d"], [3600000, "h"], [60000, "min"], [1000, "s"]];

  function ago(then, now) {
    const span = Math.abs(now - then);
    const [size, name] = UNITS.find(([size]) => span >= size) ?? UNITS[3];
    const words = `${Math.floor(span / size)} ${name}`;
    return then > now ? `in ${words}` : `${words} ago`;
  }

  function tell() {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("time[data-ago]")) {
      const words = ago(Number(element.dataset.ago), Date.now());
      if (element.textContent !== words) element.textContent = words;
    }
  }

  setInterval(tell, 1000);
  document.addEventListener("visibilitychange", tell);

  // ---- updates: a browser has six connections to a host, so a page that nobody has seen yet takes none

  const LIVE = "[hx-sse\\:connect]";
  const AGAIN_MS = 3000; // between two first attempts; later ones are those of htmx-config
  let wanted = true;

  function connect() {
    if (document.hidden || !wanted) return;
    wanted = false;
    for (const element of document.querySelectorAll(LIVE)) htmx.trigger(element, "seen");
  }

  function connection(words) {
    const place = document.querySelector("[data-connection]");
    if (place && place.textContent !== words) place.textContent = words;
  }

  document.addEventListener("htmx:sse:after:connection", () => {
    connection("live");
    // htmx pauses updates when a page is hidden, but does not notice that while it connects.
    if (document.hidden) setTimeout(() => document.dispatchEvent(new Event("visibilitychange")));
  });
  document.addEventListener("htmx:sse:error", () => connection("not connected, trying again"));
  document.addEventListener("htmx:error", (event) => {
    if (!event.target.matches?.(LIVE)) return;
    connection("not connected, trying again");
    wanted = true;
    setTimeout(connect, AGAIN_MS);
  });
  document.addEventListener("htmx:response:error", (event) => {
    if (event.target.matches?.(LIVE)) connection("not live: load the page again for news");
  });
  document.addEventListener("htmx:sse:close", () => connection(""));

  document.addEventListener("DOMContentLoaded", () => {
    document.addEventListener("visibilitychange", connect);
    connect();
    const button = document.querySelector("[data-keys]");
    button.hidden = false;
    button.addEventListener("click", () => dialog().showModal());
  });
})();
