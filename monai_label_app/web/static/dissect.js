// The gallery: predictions are asked for as frames come into view; a click or Enter opens a frame in the explorer.
import "./endolens-explain.js";

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const explorer = document.querySelector("endolens-explain");
const filter = document.querySelector("#filter");
const buttons = [...document.querySelectorAll("button[data-prediction]")];

async function describe(button) {
  const target = button.querySelector(".prediction");
  try {
    const response = await fetch(button.dataset.prediction);
    const content = await response.json();
    if (!response.ok) throw new Error(content.detail);
    button.dataset.class = content.predicted;
    target.textContent = `${content.predicted} ${percent.format(content.probabilities[content.predicted])}`;
  } catch (error) {
    target.textContent = `no prediction: ${error.message}`;
  }
}

const waiting = new Map(buttons.map((button) => [button, null]));
const once = (button) => {
  if (!waiting.get(button)) waiting.set(button, describe(button));
  return waiting.get(button);
};
const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) once(target);
});
buttons.forEach((button) => observer.observe(button));

function open(button) {
  explorer.setAttribute("image", button.dataset.image);
  explorer.setAttribute("frame", button.dataset.frame);
  for (const one of buttons) one.toggleAttribute("aria-current", false);
  button.setAttribute("aria-current", "true");
}
buttons.forEach((button) => button.addEventListener("click", () => open(button)));

async function show() {
  const wanted = filter.value;
  const count = document.querySelector("#shown");
  for (const [number, button] of buttons.entries()) {
    // Frames out of view have not been asked about yet.
    if (wanted) {
      count.value = `${number + 1} of ${buttons.length} looked at …`;
      await once(button);
    }
    if (filter.value !== wanted) return;
    button.parentElement.hidden = Boolean(wanted) && button.dataset.class !== wanted;
  }
  count.value = wanted ? `${buttons.filter((button) => !button.parentElement.hidden).length} of ${buttons.length} frames` : "";
}
filter.addEventListener("change", show);

// j and k: next and previous frame, wherever the focus is but in a field.
document.addEventListener("keydown", (event) => {
  const step = { j: 1, k: -1 }[event.key];
  if (!step || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey) return;
  const shown = buttons.filter((button) => !button.parentElement.hidden);
  const next = shown[shown.findIndex((button) => button.hasAttribute("aria-current")) + step];
  if (next) {
    open(next);
    next.scrollIntoView({ block: "nearest" });
  }
});
