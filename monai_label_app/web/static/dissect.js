// The page "Dissect": a gallery with filters, the chosen frame in <endolens-explain>, and keys for both.
import "./endolens-analysis.js";
import "./endolens-correct.js";
import "./endolens-explain.js";
import { Gallery } from "./gallery.js";
import { isField, offer } from "./keys.js";

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

offer(help, document.querySelector("#help-button"), [...KEYS, ...customElements.get("endolens-explain").keys]);
