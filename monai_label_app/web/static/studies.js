// The list of studies: found, sorted and walked by keys; new ones appear without a reload.
import "./endolens-analysis.js";
import "./endolens-upload.js";

const list = document.querySelector("#studies");
const find = document.querySelector("#find");
const state = document.querySelector("#state");
let analysed = 0; // studies, since the page was loaded
let asked = 0; // how often what is there
const rows = () => [...list.querySelectorAll("tbody tr")];
const shown = () => rows().filter((row) => !row.hidden);
const value = (row, key) => row.querySelector(`[data-key=${key}]`).textContent.trim();

function filter() {
  const words = find.value.toLowerCase().split(/\s+/);
  for (const row of rows()) {
    const text = ["patient", "id", "date", "description"].map((key) => value(row, key)).join(" ").toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || Boolean(state.value && value(row, "state") !== state.value);
  }
  const all = rows().length;
  const count = shown().length;
  document.querySelector("#count").value = all ? `${count === all ? all : `${count} of ${all}`} ${all === 1 ? "study" : "studies"}` : "";
}

function sort(heading) {
  const key = heading.dataset.key;
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const one of list.querySelectorAll("th[aria-sort]")) one.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  arrange(key, down);
}

function arrange(key, down) {
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const sorted = rows().sort((one, other) => (down ? -1 : 1) * order.compare(value(one, key), value(other, key)));
  const body = list.querySelector("tbody");
  // Only what must move does: a button that leaves its place under the mouse is not clicked.
  sorted.forEach((row, index) => body.rows[index] !== row && body.insertBefore(row, body.rows[index]));
}

function prepare() {
  for (const heading of list.querySelectorAll("th[data-key]")) heading.querySelector("button").addEventListener("click", () => sort(heading));
  filter();
}

// The server's own page once more: what is listed is what is there. Rows stay what they are, with the analysis that was
// started in them; one that ends meanwhile makes the answer old, and so does a later question.
async function refresh() {
  const [mine, before] = [++asked, analysed];
  const response = await fetch(location.href).catch(() => null); // no server: the list stays as it is
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (mine !== asked) return;
  if (analysed !== before) {
    await refresh();
    return;
  }
  const fresh = document.importNode(page.querySelector("#studies"), true);
  const body = list.querySelector("tbody");
  if (!body || !fresh.querySelector("tbody")) {
    list.replaceChildren(...fresh.childNodes);
    prepare();
    return;
  }
  const focused = document.activeElement;
  const known = new Map(rows().map((row) => [row.dataset.study, row]));
  for (const row of fresh.querySelectorAll("tbody tr")) {
    if (known.has(row.dataset.study)) update(known.get(row.dataset.study), row);
    else body.append(row);
    known.delete(row.dataset.study);
  }
  for (const row of known.values()) row.remove();
  const heading = list.querySelector("th[aria-sort]");
  arrange(heading.dataset.key, heading.getAttribute("aria-sort") === "descending");
  filter();
  if (list.contains(focused)) focused.focus();
}

function update(row, fresh) {
  [...fresh.cells].forEach((cell, index) => {
    const old = row.cells[index];
    const [ours, theirs] = [old, cell].map((one) => one.querySelector("endolens-analysis"));
    const same = theirs
      ? ours.running || (!theirs.hasAttribute("job") && ours.getAttribute("state") === theirs.getAttribute("state"))
      : old.innerHTML === cell.innerHTML;
    if (!same) old.replaceWith(cell);
  });
}

function walk(step) {
  const links = shown().map((row) => row.querySelector("a"));
  const here = links.indexOf(document.activeElement.closest("tr")?.querySelector("a"));
  const next = links[here < 0 ? 0 : here + step];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

find.addEventListener("input", filter);
state.addEventListener("change", filter);
document.addEventListener("endolens-stored", refresh);
document.addEventListener("endolens-analysed", ({ target }) => {
  analysed += 1;
  const badge = target.closest("tr").querySelector(".state");
  if (badge.dataset.state === "new") badge.textContent = badge.dataset.state = "analysed";
  filter();
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    "/": () => find.focus(),
    j: () => walk(1),
    k: () => walk(-1),
    u: () => document.querySelector("endolens-upload").choose(),
    a: () => document.activeElement.closest("tr")?.querySelector("endolens-analysis button").click(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
});
prepare();
