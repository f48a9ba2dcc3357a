// The page "Dissect": a gallery with filters, the chosen frame in <endolens-explain>, and keys for both.
import "./endolens-analysis.js";
import "./endolens-correct.js";
import "./endolens-explain.js";
import { Gallery } from "./gallery.js";

const KEYS = [
  ["← →", "the frame before, the next frame"],
  ["Home End", "the first frame, the last frame"],
  ["f", "filter the frames"],
  ["?", "this help"],
];

const explorer = document.querySelector("endolens-explain");
const help = document.querySelector("#help");
const filters = document.querySelector(".filters");
const gallery = new Gallery(document.querySelector(".frames"), filters, explorer);

const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

document.addEventListener("keydown", (event) => {
  const [target] = event.composedPath();
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || isField(target)) return;
  let known = true;
  if (event.key in moves) gallery.move(moves[event.key]);
  else if (event.key === "f") filters.elements.class.focus();
  else if (event.key === "?") help.showModal();
  else known = explorer.press(event.key);
  if (known) event.preventDefault();
});

// A field has its own use for keys; of a tick box that is the space bar alone.
function isField(target) {
  return target instanceof Element && target.matches("select, textarea, input:not([type=checkbox])");
}

document.querySelector("#help-button").addEventListener("click", () => help.showModal());
help.querySelector("tbody").append(
  ...[...KEYS, ...customElements.get("endolens-explain").keys].map(([keys, what]) => {
    const row = document.createElement("tr");
    const [left, right] = [row.insertCell(), row.insertCell()];
    const keyOf = (key) => (key === "–" ? key : Object.assign(document.createElement("kbd"), { textContent: key }));
    for (const key of keys.split(" ")) left.append(keyOf(key), " ");
    right.textContent = what;
    return row;
  }),
);
