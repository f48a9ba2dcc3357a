// The page "Video": a video with its timeline and findings, and, while it is paused, <endolens-explain> on its frame.
import "./endolens-analysis.js";
import "./endolens-explain.js";
import { ask } from "./ask.js";
import { addToReport } from "./evidence.js";
import { percent } from "./explain-views.js";
import { isField, offer } from "./keys.js";
import { Screen } from "./video-screen.js";
import { Timeline, colour, seconds } from "./video-timeline.js";

const LEAP = 5; // seconds
const SETTLED_MILLISECONDS = 150; // whoever steps on quickly is not kept waiting for each map

const KEYS = [
  ["Space", "play, pause; Enter presses a button"],
  [", .", "the frame before, the next frame"],
  ["← →", `${LEAP} seconds back, ${LEAP} seconds on`],
  ["Home End", "the beginning, the end"],
  ["j k", "the next finding, the finding before"],
  ["r", "add the frame to the report"],
  ["?", "this help"],
];
// Those of the explorer that stand for something else here, or for views that it has not over a video.
const OTHERS = [",", ".", "n", "v"];

const player = document.querySelector(".player");
const { api, study } = player.dataset;
const of = (selector) => document.querySelector(selector);
const explorer = of("endolens-explain");
const over = of(".over");
const said = player.querySelector(".said");
const help = of("#help");
const choice = player.querySelector("[name=video]");
const screen = new Screen(api, player.querySelector("video"));
const timeline = new Timeline(player.querySelector(".timeline"), player.querySelector(".hint"), screen);
const models = ask(`${api}/models`);
let shown; // by the explorer: address, method, layer, label
let settled;

over.attachShadow({ mode: "open" }).innerHTML = `
<link rel="stylesheet" href="${new URL("endolens-explain.css", import.meta.url)}">
<link rel="stylesheet" href="${new URL("video-over.css", import.meta.url)}">
<div class="panes"></div>`;
explorer.over(over.shadowRoot.querySelector(".panes"));

function say(text, wrong = false) {
  said.textContent = text;
  said.classList.toggle("wrong", wrong);
}

// The server's name for the frame that is shown.
const address = () => screen.frame && `/images/${encodeURIComponent(screen.opened.uid)}/frames/${screen.frame.number}`;

// The map is of one frame, and must not lie over another, nor over a moving picture.
function reveal() {
  const current = Boolean(shown) && shown.address === address();
  over.hidden = !current;
  of("[name=report]").disabled = !current;
}

function follow() {
  const { frame, opened } = screen;
  clearTimeout(settled);
  reveal();
  clock();
  of(".playing").hidden = Boolean(frame);
  of(".paused").hidden = !frame;
  player.querySelector("[name=play]").textContent = screen.paused ? "Play" : "Pause";
  if (!frame) return;
  say("");
  of(".added").value = "";
  // So that the page can be loaded again, and pointed at.
  history.replaceState(null, "", `#${opened.uid}/${frame.start.toFixed(3)}`);
  settled = setTimeout(() => {
    explorer.setAttribute("image", opened.uid);
    explorer.setAttribute("frame", frame.number);
    reveal();
  }, SETTLED_MILLISECONDS);
}

function clock() {
  const { frame, opened, time } = screen;
  const number = frame ? ` · frame ${frame.number} of ${opened.frames}` : "";
  player.querySelector(".clock").value = `${seconds(frame?.start ?? time)} / ${seconds(opened?.seconds ?? 0)}${number}`;
  const buttons = [...document.querySelectorAll(".findings button")];
  for (const button of buttons) {
    const { start, end } = button.segment;
    button.toggleAttribute("aria-current", start <= time && time < end);
  }
}

async function list(opened) {
  const [{ classes }] = await models;
  timeline.show(opened, classes);
  const state = of("endolens-analysis").getAttribute("state");
  const none = state === "new" ? "The study has not been analysed: “Analyse”, above, finds what is seen when." : "No class is known to be seen in this video for long enough.";
  of(".findings .none").textContent = opened.segments.length ? "" : none;
  of(".findings ol").replaceChildren(...opened.segments.map((segment) => finding(segment, classes)));
  clock();
}

function finding(segment, classes) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button", segment });
  const picture = Object.assign(document.createElement("img"), { alt: "", loading: "lazy" });
  if (segment.still) picture.src = `${api}/images/${segment.still}/frames/1/picture.jpg?width=160`;
  const name = Object.assign(document.createElement("strong"), { textContent: segment.class });
  name.style.setProperty("--colour", colour(classes, segment.class));
  const words = `${seconds(segment.start)} to ${seconds(segment.end)}, up to ${percent(segment.peak)}`;
  button.append(picture, name, " ", Object.assign(document.createElement("span"), { textContent: words }));
  button.setAttribute("aria-label", `jump to ${segment.class} ${words}`);
  item.append(button);
  return item;
}

const momentOf = ({ start, end, still_time: still }) => still ?? (start + end) / 2;
const jumpTo = (segment) => screen.jump(momentOf(segment));

// The finding that begins next, or the one before.
function walk(direction) {
  const { segments = [] } = screen.opened ?? {};
  const times = segments.map((one) => [momentOf(one), one]).sort(([one], [other]) => one - other);
  const here = screen.frame?.start ?? screen.time;
  const found = direction > 0 ? times.find(([time]) => time > here + 0.01) : times.findLast(([time]) => time < here - 0.01);
  if (found) jumpTo(found[1]);
}

// The frame becomes an image of the study, and goes into the report with the view of it that is seen.
async function report() {
  const button = of("[name=report]");
  if (button.disabled) return;
  button.disabled = true;
  try {
    await addToReport(api, study, shown, { video: true, seen: true });
    of(".added").value = `Added to the report under ${shown.label}: the frame and this view of it.`;
  } catch (error) {
    of(".added").value = `Not added: ${error.message}`;
  }
  reveal();
}

function press(key) {
  const actions = {
    " ": () => screen.toggle(),
    ",": () => screen.step(-1),
    ".": () => screen.step(1),
    ArrowLeft: () => screen.jump(screen.time - LEAP),
    ArrowRight: () => screen.jump(screen.time + LEAP),
    Home: () => screen.jump(0),
    End: () => screen.jump(Infinity),
    j: () => walk(1),
    k: () => walk(-1),
    r: report,
    "?": () => help.showModal(),
  };
  if (!Object.hasOwn(actions, key)) return !OTHERS.includes(key) && Boolean(screen.frame) && explorer.press(key);
  actions[key]();
  return true;
}

screen.addEventListener("opened", ({ detail }) => list(detail).catch((error) => say(error.message, true)));
screen.addEventListener("frame", follow);
screen.addEventListener("time", clock);
screen.addEventListener("failed", ({ detail }) => say(detail.passing ? detail.message : `Not shown: ${detail.message}`, !detail.passing));
document.addEventListener("endolens-shown", ({ detail }) => {
  shown = detail;
  reveal();
});
document.addEventListener("endolens-asked", () => (of("[name=report]").disabled = true));
document.addEventListener("endolens-analysed", () => screen.refresh().catch((error) => say(error.message, true)));
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button?.segment) jumpTo(button.segment);
  ({ play: () => screen.toggle(), back: () => screen.step(-1), on: () => screen.step(1), report })[button?.name]?.();
});
player.querySelector("video").addEventListener("click", () => screen.toggle());
player.querySelector("[name=speed]").addEventListener("change", ({ target }) => (screen.speed = Number(target.value)));
choice.addEventListener("change", () => open(choice.value));
document.addEventListener("keydown", (event) => {
  const [target] = event.composedPath();
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || isField(target)) return;
  if (event.key === " " && target instanceof Element && target.matches("input")) return;
  if (press(event.key)) event.preventDefault();
});
const explained = customElements.get("endolens-explain").keys.filter(([keys]) => !OTHERS.some((key) => keys.split(" ").includes(key)));
offer(help, of("#help-button"), [...KEYS, ...explained]);

function open(uid, time) {
  say("The video is being opened …");
  screen.open(uid, time);
}

function addressed() {
  const [uid, time] = location.hash.slice(1).split("/");
  const known = [...choice.options].some(({ value }) => value === uid);
  choice.value = known ? uid : choice.options[0].value;
  open(choice.value, known ? Number(time) || 0 : 0);
}
window.addEventListener("hashchange", addressed);
addressed();
