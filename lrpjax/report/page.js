"use strict";
// Sorting, hints and copying: what the page cannot do by itself. Everything else is HTML and CSS.

document.documentElement.classList.add("scripted");

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "accent" });

/** What a cell sorts by: a number, a text, or null, which comes last in either order. */
function keyOf(cell, kind) {
  if (kind === "text") return cell.hasAttribute("data-none") ? null : cell.textContent.trim();
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

/** Negative where a stands before b in ascending order; both are numbers, or both are texts. */
function compare(a, b) {
  if (typeof a === "string") return collator.compare(a, b);
  return a < b ? -1 : a > b ? 1 : 0; // not a - b, which is NaN for two infinities
}

function sort(heading) {
  const body = heading.closest("table").tBodies[0];
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const entries = rowsAsGiven.get(body).map((row) => ({
    row,
    key: keyOf(row.cells[heading.cellIndex], heading.dataset.kind),
  }));
  const known = entries.filter((entry) => entry.key !== null);
  const unknown = entries.filter((entry) => entry.key === null);
  known.sort((a, b) => compare(a.key, b.key) * (ascending ? 1 : -1));
  body.append(...[...known, ...unknown].map((entry) => entry.row));
}

// Equal rows keep the order in which the page came, whatever was sorted before.
const rowsAsGiven = new Map();
for (const body of document.querySelectorAll("tbody")) rowsAsGiven.set(body, [...body.rows]);

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// Hints open by themselves when tapped. Here they find their place, and follow the mouse.
const HINT_WIDTH = 300;
const HINT_ROOM = 170; // pixels above a heading that are enough for its hint
const HINT_DELAY = 250; // milliseconds: crossing the headings opens none
const tips = [];

for (const button of document.querySelectorAll("button.hint")) {
  const tip = document.getElementById(button.getAttribute("popovertarget"));
  if (!tip.showPopover) continue; // an older browser: the hints stand below the table
  tips.push(tip);
  const heading = button.closest("th");
  let timer;
  tip.addEventListener("beforetoggle", () => {
    const { top, bottom } = heading.getBoundingClientRect();
    const width = Math.min(HINT_WIDTH, innerWidth - 32);
    const left = Math.min(button.getBoundingClientRect().left - 8, innerWidth - width - 16);
    const above = `auto auto ${innerHeight - top + 4}px`;
    const vertical = top > HINT_ROOM ? above : `${bottom + 4}px auto auto`;
    tip.style.margin = "0";
    tip.style.inset = `${vertical} ${Math.max(16, left)}px`;
    tip.style.width = `${width}px`;
  });
  heading.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") timer = setTimeout(() => tip.showPopover(), HINT_DELAY);
  });
  heading.addEventListener("pointerleave", (event) => {
    clearTimeout(timer);
    if (event.pointerType === "mouse") tip.hidePopover();
  });
}

addEventListener(
  "scroll",
  () => tips.forEach((tip) => tip.hidePopover()),
  { capture: true, passive: true },
);

// What is wider than its frame fades at the right edge until it is scrolled to its end.
const frames = new ResizeObserver((entries) => entries.forEach(({ target }) => fade(target)));

function fade(frame) {
  const beyond = frame.scrollWidth - frame.clientWidth - frame.scrollLeft;
  frame.classList.toggle("more", beyond > 1);
}

for (const frame of document.querySelectorAll(".scroll")) {
  frames.observe(frame);
  frame.addEventListener("scroll", () => fade(frame), { passive: true });
}

for (const button of document.querySelectorAll("button.copy")) {
  const code = button.parentElement.querySelector("code");
  const label = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // some browsers forbid it to pages opened as files
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = label), 2000);
  });
}
