// What asks before it acts: signing, a conflict of two editors, and the list of versions.

import { same } from "./report-store.js";

const element = (name, content, properties = {}) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...[content].flat());
  return made;
};

// Ask for name, role and organization, then sign; the dialog stays until it is done.
export function askToSign({ missing, author, sign }) {
  const dialog = document.querySelector("#sign");
  const form = dialog.querySelector("form");
  const trouble = form.querySelector(".error");
  const warning = dialog.querySelector("#sign-missing");
  warning.hidden = !missing.length;
  warning.querySelector("ul").replaceChildren(...missing.map((words) => element("li", words)));
  const { family, given, role, organization, incomplete } = form.elements;
  incomplete.required = Boolean(missing.length);
  incomplete.checked = false;
  if (!family.value && author) [given.value, family.value] = splitName(author);
  trouble.hidden = true;
  const buttons = form.querySelectorAll("button");
  form.onsubmit = async (event) => {
    event.preventDefault();
    const name = [family.value.trim(), given.value.trim()].join("^").replace(/\^$/, "");
    for (const button of buttons) button.disabled = true;
    try {
      await sign({ name, role: role.value, organization: organization.value, incomplete: incomplete.checked });
      dialog.close();
    } catch (problem) {
      trouble.textContent = problem.message;
      trouble.hidden = false;
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  };
  form.querySelector("[value=cancel]").onclick = () => dialog.close();
  dialog.showModal();
}

function splitName(name) {
  const parts = name.trim().split(/\s+/);
  return [parts.slice(0, -1).join(" "), parts.at(-1)];
}

// Show what two editors wrote, field by field; answers with the report that is to be saved. What one did not change since
// base stays as the other has it, unless one chooses otherwise.
export function settle({ mine, base, current, words }) {
  const dialog = document.querySelector("#conflict");
  const theirs = current.report;
  const fields = Object.keys(mine).filter((field) => !same(mine[field], theirs[field]));
  document.querySelector("#conflict-who").textContent =
    `Version ${current.number}${current.author ? ` by ${current.author}` : ""}, ${new Date(current.saved).toLocaleString()}. Choose for each field which of the two is saved.`;
  const choice = (field, value, report, checked) => {
    const input = element("input", [], { type: "radio", name: field, value, checked });
    return element("td", element("label", [input, ` ${inWords(report[field], words)}`]));
  };
  const rows = fields.map((field) => {
    const name = element("th", words[`field.${field}`] ?? field, { scope: "row" });
    const touched = !base || !same(mine[field], base[field]);
    return element("tr", [name, choice(field, "theirs", theirs, !touched), choice(field, "mine", mine, touched)]);
  });
  dialog.querySelector("tbody").replaceChildren(...rows);
  return new Promise((resolve) => {
    const done = (whose) => {
      dialog.close();
      const merged = fields.map((field) => [field, (whose(field) === "mine" ? mine : theirs)[field]]);
      resolve({ ...theirs, ...Object.fromEntries(merged) });
    };
    const form = dialog.querySelector("form");
    form.onsubmit = (event) => {
      event.preventDefault();
      done((field) => form.elements[field].value);
    };
    for (const whose of ["theirs", "mine"]) form.querySelector(`button[value=${whose}]`).onclick = () => done(() => whose);
    // Left unsettled, nothing could be saved any more. A second Escape would not ask by "cancel".
    dialog.onkeydown = (event) => {
      if (event.key === "Escape") event.preventDefault();
    };
    dialog.showModal();
  });
}

// A field as text.
function inWords(value, words) {
  if (Array.isArray(value)) {
    return value
      .map((one, index) => {
        const site = one.site ? `${words[`site.${one.site}`]}: ` : "";
        return `${index + 1}. ${site}${one.text} (${one.label || "no class"}, ${one.evidence.length} images)`;
      })
      .join("\n");
  }
  if (value && typeof value === "object" && "key" in value) {
    const name = words[`sedation.${value.key}`] ?? words[`site.${value.key}`] ?? value.key;
    return [name, value.remark].filter(Boolean).join(". ") || "–";
  }
  if (value && typeof value === "object") {
    return Object.entries(value).map(([name, score]) => `${words[`segment.${name}`]} ${score ?? "–"}`).join(", ");
  }
  return words[`kind.${value}`] ?? (value || "–");
}

// List all versions; each can be looked at, and brought back where the report is open.
export async function listVersions({ versions, page, restore }) {
  const dialog = document.querySelector("#versions");
  const rows = (await versions()).reverse().map((one) => {
    const told = one.signature ? `signed by ${one.signature.name.split("^").reverse().join(" ")}` : one.set_aside ? "set aside in a conflict" : "";
    const look = element("a", "Look", { href: page(one.number), target: "_blank" });
    const back = element("button", "Bring back", { type: "button", className: "quiet" });
    back.onclick = () => {
      dialog.close();
      restore(one.number);
    };
    const cells = [one.number, new Date(one.saved).toLocaleString(), one.author, told].map((text) => element("td", String(text)));
    return element("tr", [...cells, element("td", restore ? [look, " ", back] : [look])]);
  });
  dialog.querySelector("tbody").replaceChildren(...rows);
  dialog.showModal();
}
