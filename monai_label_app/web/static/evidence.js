// What goes from the network into a report: a frame, with the view of it that is seen.
import { ask } from "./ask.js";

export const READER = "endolens-reader"; // in localStorage: whoever said something last on this computer

// Store a view of a frame as an image of its study; "shown" is what <endolens-explain> shows.
export function storeView(api, address, { method, layer, label }) {
  return ask(`${api}${address}/captures`, { method, layer, class: label });
}

// Add a frame to the report of a study, a frame of a video as a still, which becomes an image of the study; "seen" says
// that its view goes in, too. Returns whether the study has new images.
export async function addToReport(api, study, shown, { image, frame, video, seen }) {
  const still = video ? await ask(`${api}${shown.address}/still`, {}) : null;
  const added = still ? { image: still.sop_instance_uid, frame: 1 } : { image, frame };
  const address = `/images/${encodeURIComponent(added.image)}/frames/${added.frame}`;
  const view = seen ? await storeView(api, address, shown) : null;
  const author = localStorage.getItem(READER) ?? "";
  const [language] = navigator.language.split("-");
  const capture = view?.sop_instance_uid ?? "";
  await ask(`${api}/studies/${encodeURIComponent(study)}/report/evidence`, { ...added, class: shown.label, capture, author, language });
  return Boolean(still?.stored || view?.stored);
}
