// The report's fields: each control is named by its place in the report, e.g. "sedation.remark".

const form = document.querySelector("#report");
const controls = [...form.elements].filter(({ name }) => name);

const holder = (report, path) => path.slice(0, -1).reduce((part, key) => part[key], report);

// Show a report; only what differs is touched, so that the cursor stays where it is.
export function show(report) {
  for (const control of controls) {
    const path = control.name.split(".");
    const value = String(holder(report, path)[path.at(-1)] ?? "");
    if (control.value !== value) control.value = value;
  }
  showTotal(report);
}

// Write each change into the report, then say so.
export function listen(report, changed) {
  form.addEventListener("input", ({ target }) => {
    if (!target.name) return;
    const path = target.name.split(".");
    const { value } = target;
    holder(report(), path)[path.at(-1)] = "number" in target.dataset ? (value === "" ? null : Number(value)) : value;
    showTotal(report());
    changed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}

function showTotal({ preparation }) {
  const scores = Object.values(preparation);
  const total = scores.includes(null) ? "–" : scores.reduce((sum, score) => sum + score, 0);
  document.querySelector("#total").value = total;
}

// Put every word of the page into a language.
export function translate(words, root = document) {
  for (const place of root.querySelectorAll("[data-word]")) place.textContent = words[place.dataset.word];
}
