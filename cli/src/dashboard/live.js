// Shows what has changed, without taking the place of a reader who is in the middle of something:
// the page is had again every two seconds while it is seen, and only what differs is exchanged.
// Without this script, the page is had again by its reader.
"use strict";
const PAUSE = 2000;

async function renew() {
  if (document.hidden) return;
  const main = document.querySelector("main[data-live]");
  if (main === null || (main !== document.activeElement && main.contains(document.activeElement))) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.querySelector("main[data-live]");
  if (next !== null && next.innerHTML !== main.innerHTML) main.replaceChildren(...next.childNodes);
}

setInterval(() => renew().catch(() => {}), PAUSE);
