"use strict";
// Asks for the board every second and puts in what is new. Everything is in the page as it comes; this only keeps it so.

const EVERY_MS = 1000;
const LONGEST_WAIT_MS = 8000;
const TYPING_MS = 250;

const board = document.getElementById("board");
const find = document.getElementById("find");
const state = document.getElementById("state");
const pause = document.getElementById("pause");
const section = new URLSearchParams(location.search).get("section") ?? "";

let paused = false;
let wait = EVERY_MS;
let timer = 0;
let round = 0;

/** Make `old` like `fresh` and touch only what differs: nothing loses the focus, and a colour that fades goes on fading. */
function renew(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  renewChildren(old, fresh);
}

/** Children with an id are found by it; others are taken by their place. */
function renewChildren(old, fresh) {
  const wanted = new Set([...fresh.children].map((child) => child.id));
  // What goes away goes first, so that the rest keeps its place: a moved element begins its fading anew.
  for (const child of [...old.children]) if (child.id && !wanted.has(child.id)) child.remove();
  const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const here = place && !place.id && !child.id && place.nodeName === child.nodeName ? place : null;
    const same = child.id ? known.get(child.id) : here;
    if (!same) {
      old.insertBefore(child, place);
      continue;
    }
    if (same === place) place = place.nextSibling;
    else old.insertBefore(same, place);
    renew(same, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** One look; of several under way the last one counts. */
async function look() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    const seen = find.value === find.defaultValue ? board.dataset.stamp : "";
    const body = new URLSearchParams({ find: find.value, section: find.value ? "" : section, seen });
    const answer = await fetch("/page/board", { method: "POST", body, signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const text = await answer.text();
    if (mine !== round) return;
    if (text) show(text);
    say("live");
    wait = EVERY_MS;
  } catch {
    // The console has the cause already; a visitor wants to know that this is not the present.
    if (mine !== round) return;
    say("lost");
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
  if (!paused && !document.hidden) timer = setTimeout(look, wait);
}

function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("board");
  renew(board, fresh);
  find.defaultValue = find.value;
}

const WORDS = { live: "Live", paused: "Paused", lost: "No answer: this is how it was" };

function say(how) {
  if (document.body.dataset.state === how) return;
  document.body.dataset.state = how;
  state.textContent = WORDS[how];
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Go on" : "Pause";
  if (paused) {
    round += 1;
    clearTimeout(timer);
    say("paused");
  } else look();
});

find.form.addEventListener("submit", (event) => {
  event.preventDefault();
  look();
});
find.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(look, TYPING_MS);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) look();
});

state.hidden = pause.hidden = false;
look();
