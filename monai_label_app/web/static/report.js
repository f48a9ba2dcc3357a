// The report of a study: opens filled, is saved as it is typed, and once signed is only read.

import { askToSign, listVersions, settle } from "./report-dialogs.js";
import { Findings } from "./report-findings.js";
import { listen, show, translate } from "./report-form.js";
import { Gallery } from "./report-gallery.js";
import { ReportStore } from "./report-store.js";
import { reword } from "./report-words.js";

const $ = (selector) => document.querySelector(selector);
const { languages, lower, sites } = JSON.parse($("#data").textContent);
const address = $("#data").dataset.report;
const store = new ReportStore(address);

let report = null;
let version = null;

const words = () => languages[(report ?? version?.report)?.language] ?? languages.en;
const changed = () => {
  gallery.show();
  $("#normal").hidden = report.observations.length > 0;
  store.edited(report);
};
const picture = (uid, frame) => `${address}/pictures/${uid}/${frame}.jpg?width=480`;
const findings = new Findings({ report: () => report, words, sites, picture, changed });
const gallery = new Gallery(findings);

function showReport() {
  show(report);
  $("#language").value = report.language;
  translate(words());
  findings.show();
  gallery.show();
  $("#normal").hidden = report.observations.length > 0;
}

store.addEventListener("state", ({ detail: { state, text } }) => {
  $("#state").dataset.state = state;
  $("#state").value = text;
});

store.addEventListener("version", ({ detail }) => {
  const before = version;
  version = detail.version;
  const { signature, documents, number, predecessor } = version;
  showMissing();
  $("#preview").href = `${address}.pdf?version=${number}`;
  $("#addendum-field").hidden = predecessor === null;
  $("#show-sign").hidden = $("#begin-addendum").hidden = false;
  $("#show-sign").hidden = $("#desk").hidden = Boolean(signature);
  $("#show-sign").disabled = false;
  $("#begin-addendum").hidden = !documents.length;
  $("#signed").hidden = !signature;
  $("#not-stored").hidden = Boolean(documents.length);
  $("#language").disabled = Boolean(signature);
  if (signature) showSigned();
  else if (before?.signature) showOpened();
});

function showMissing() {
  const { missing } = version;
  $("#missing").replaceChildren(...missing.map((field) => item(words()[`missing.${field}`], `#field-${field}`)));
  $("#missing").classList.toggle("complete", !missing.length);
  if (!missing.length) $("#missing").append(Object.assign(document.createElement("li"), { textContent: "Everything is said." }));
}

function item(text, target) {
  const made = document.createElement("li");
  made.append(Object.assign(document.createElement("a"), { textContent: text, href: target }));
  return made;
}

function showSigned() {
  const { name, role, organization, time } = version.signature;
  const who = [name.split("^").reverse().join(" "), role, organization].join(", ");
  $("#signed-by").textContent = `Signed by ${who}, ${new Date(time).toLocaleString()}`;
  $("#signed iframe").src = `${address}.html?version=${version.number}`;
}

function showOpened() {
  report = version.report;
  showReport();
}

store.addEventListener("conflict", async ({ detail: { mine, base, current } }) => {
  report = await settle({ mine, base, current, words: words() });
  showReport();
  store.resolve(report, current);
});

listen(() => report, changed);

// Who logged in is who edits.
if (!$("#author").readOnly) $("#author").value = sessionStorage.getItem("endolens:author") ?? "";
store.author = $("#author").value;
$("#author").addEventListener("input", ({ target }) => {
  store.author = target.value;
  sessionStorage.setItem("endolens:author", target.value);
});

$("#language").addEventListener("change", ({ target }) => {
  const before = words();
  report.language = target.value;
  reword(report, before, words());
  showReport();
  showMissing();
  changed();
});

$("#add").addEventListener("click", () => findings.add());
$("#normal").addEventListener("click", () => {
  const text = words()[`normal.${report.kind}`];
  if (text) findings.add(text);
  else trouble("Choose which examination it was: what is normal depends on it.");
});
for (const button of document.querySelectorAll("[data-none]")) {
  button.addEventListener("click", () => {
    report[button.dataset.none] = words()[`none.${button.dataset.none}`];
    show(report);
    changed();
  });
}

$("#show-versions").addEventListener("click", () =>
  attempt(() =>
    listVersions({
      versions: () => store.versions(),
      page: (number) => `${address}.html?version=${number}`,
      restore: version.signature ? null : (number) => attempt(() => restore(number)),
    }),
  ),
);

async function restore(number) {
  report = (await store.version(number)).report;
  showReport();
  changed();
}

// An analysis may have ended since the draft was made, in another tab or by itself.
async function lookForProposals() {
  if (!version || version.signature) return;
  const { findings: more, images } = await store.proposals();
  $("#proposals").hidden = !(more || images);
  $("#proposals span").textContent = `The machine proposes what was not in this report yet: findings: ${more}, images: ${images}.`;
}
document.addEventListener("visibilitychange", () => document.hidden || attempt(lookForProposals));
$("#take-up").addEventListener("click", () =>
  attempt(async () => {
    if (!(await store.flush())) return;
    ({ report } = await store.proposals());
    $("#proposals").hidden = true;
    showReport();
    changed();
  }),
);

$("#show-sign").addEventListener("click", () =>
  attempt(async () => {
    if (!(await store.flush())) return;
    const missing = version.missing.map((field) => words()[`missing.${field}`]);
    askToSign({ missing, author: store.author, sign: (signature) => store.sign(signature) });
  }),
);
$("#store").addEventListener("click", () => {
  const { name, role, organization } = version.signature;
  attempt(() => store.sign({ name, role, organization, incomplete: true }));
});
$("#begin-addendum").addEventListener("click", () => attempt(() => store.addendum()));

document.addEventListener("keydown", (event) => {
  if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    store.flush();
  }
});

function trouble(text) {
  $("#trouble").textContent = text;
  $("#trouble").hidden = !text;
}

async function attempt(action) {
  trouble("");
  try {
    await action();
  } catch (problem) {
    trouble(problem.message);
  }
}

attempt(async () => {
  const [wished] = navigator.language.split("-");
  try {
    ({ report } = await store.open(wished in languages ? wished : "en"));
  } catch (problem) {
    $("#state").value = "";
    throw problem;
  }
  if (version.signature) return;
  showReport();
  await lookForProposals();
});
