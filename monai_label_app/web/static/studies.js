// The list of studies: found, sorted and walked by keys; new ones appear without a reload.
import "./endolens-analysis.js";
import "./endolens-upload.js";

const list = document.querySelector("#studies");
const find = document.querySelector("#find");
const state = document.querySelector("#state");
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
  list.querySelector("tbody")?.append(...sorted);
}

function prepare() {
  for (const heading of list.querySelectorAll("th[data-key]")) heading.querySelector("button").addEventListener("click", () => sort(heading));
  filter();
}

// The server's own page once more: what is listed is what is there. An analysis that runs is found again by its job.
async function refresh() {
  const sorted = list.querySelector("th[aria-sort]");
  const response = await fetch(location.href);
  if (!response.ok) return;
  const focused = list.contains(document.activeElement) && document.activeElement.getAttribute("href");
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  list.replaceChildren(...document.importNode(page.querySelector("#studies"), true).childNodes);
  prepare();
  const heading = sorted && list.querySelector(`th[data-key=${sorted.dataset.key}]`);
  if (heading) {
    for (const one of list.querySelectorAll("th[aria-sort]")) one.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sorted.getAttribute("aria-sort"));
    arrange(sorted.dataset.key, sorted.getAttribute("aria-sort") === "descending");
  }
  if (focused) [...list.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
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
