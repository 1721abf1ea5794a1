// Forms and answers of a run's page in a dialog. Without this they are pages of their own.
"use strict";

(() => {
  const dialog = () => document.getElementById("dialog");

  // What was done is said once, not whenever the page is loaded again or its address is sent to somebody.
  const address = new URL(location);
  if (address.searchParams.has("done")) {
    for (const name of ["done", "bookmark"]) address.searchParams.delete(name);
    history.replaceState(history.state, "", address);
  }

  document.addEventListener("htmx:after:swap", () => {
    const words = document.querySelector("[data-title]").dataset.title;
    document.title = words + document.title.slice(document.title.lastIndexOf(" · "));
    const content = document.getElementById("dialog-content");
    if (content?.childElementCount && !dialog().open) dialog().showModal();
  });

  document.addEventListener("htmx:error", (event) => {
    if (!event.target.matches?.("[hx-get], [hx-post]")) return;
    const content = document.getElementById("dialog-content");
    if (!content.querySelector("[role=alert]")) content.prepend(document.getElementById("no-answer").content.cloneNode(true));
    if (!dialog().open) dialog().showModal();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]") && dialog()?.open) {
      event.preventDefault();
      dialog().close();
    }
  });

  document.addEventListener("close", (event) => {
    if (event.target === dialog()) document.getElementById("dialog-content").replaceChildren();
  }, true);
})();
