// Standard wording follows the report's language; what a person wrote stays.

const NONE = ["interventions", "adverse_events", "recommendation"];
const NOTICE = "{notice}"; // what the model's card says of itself, in its own language

// Put a report's standard wording from one language into another.
export function reword(report, from, to) {
  const again = (text, ...keys) => keys.reduce((said, key) => (from[key] ? retold(said, from[key], to[key], from, to) : said), text);
  const normal = Object.keys(from).filter((key) => key.startsWith("normal."));
  for (const one of report.observations) {
    one.text = again(one.text, `term.${one.label}`, ...normal);
    for (const image of one.evidence) image.reason = again(image.reason, "reason.surest", "reason.only");
  }
  for (const field of NONE) report[field] = again(report[field], `none.${field}`);
  const involvement = "ai.involvement";
  report.ai_involvement = retold(report.ai_involvement, from[involvement] + NOTICE, to[involvement] + NOTICE, from, to);
}

// A class that the language does not know is worded by its name.
export const wording = (words, label) => words[`term.${label}`] ?? label;

// A text that has the form of a template, in the form of another; any other text stays.
function retold(text, template, other, from, to) {
  const form = template.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{(\w+)\}/g, "(?<$1>.*?)");
  const found = text.match(new RegExp(`^${form}$`, "s"));
  if (!found) return text;
  return other.replace(/\{(\w+)\}/g, (_, place) => value(found.groups[place], from, to));
}

function value(text, from, to) {
  const key = ["ai.calibrated", "ai.uncalibrated"].find((one) => from[one] === text);
  if (key) return to[key];
  return /^\d+\D\d+ %$/.test(text) ? text.replace(from.decimal, to.decimal) : text;
}
