// A Key Object Selection as a series of its own: the images that it selects. OHIF itself lists it and opens nothing.

import { selectsImages } from "./extension.js";

const STACK = "@ohif/extension-default.sopClassHandlerModule.stack";

// Show the selections of which all images are known by now; others come with later series.
export function showKeyObjects(displaySetService) {
  const listed = displaySetService.getActiveDisplaySets();
  const known = new Map(listed.filter((one) => !one.unsupported).flatMap(instances).map((one) => [one.SOPInstanceUID, one]));
  for (const placeholder of listed.filter(selectsImages)) {
    // Selections of one series, as of a report and its addendum, have images in common.
    const images = [...new Set(instances(placeholder).flatMap(selected))].map((uid) => known.get(uid));
    if (!images.length || images.includes(undefined)) continue;
    const { SeriesInstanceUID, SeriesDescription, SeriesNumber, SeriesDate, Modality } = placeholder;
    const title = { SeriesInstanceUID, SeriesDescription, SeriesNumber, SeriesDate, Modality, label: SeriesDescription };
    const shown = displaySetService.extensionManager.getModuleEntry(STACK).getDisplaySetsFromSeries(images);
    displaySetService.deleteDisplaySet(placeholder.displaySetInstanceUID);
    displaySetService.addDisplaySets(...shown.map((one) => Object.assign(one, title)));
  }
}

const instances = (displaySet) => displaySet.instances ?? displaySet.images ?? [];

// SOP Instance UIDs of its IMAGE items.
function selected({ ContentSequence }) {
  const items = [ContentSequence].flat().filter((one) => one?.ValueType === "IMAGE");
  return items.flatMap((one) => [one.ReferencedSOPSequence].flat()).map((one) => one.ReferencedSOPInstanceUID);
}
