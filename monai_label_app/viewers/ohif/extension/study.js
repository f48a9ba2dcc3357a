// The study that OHIF shows: its new series, and the way to one of its images.

// Tell OHIF of what is new in a study, so that it lists it.
export async function refresh({ servicesManager, extensionManager }, study) {
  const [source] = extensionManager.getActiveDataSource();
  const manifest = new URLSearchParams(location.search).get("url");
  await (manifest ? refreshManifest(source, study, manifest) : refreshArchive(servicesManager.services, source, study));
}

// OHIF reads a manifest once. It gets the new one under another address, by which it learns to find the images, and as
// the series of the old one, which it asks for once more.
async function refreshManifest(source, study, manifest) {
  const address = new URL(manifest, location);
  address.searchParams.set("read", Date.now());
  const [answer] = await Promise.all([fetch(address), source.initialize({ url: address.href, query: new URLSearchParams() })]);
  const found = (await answer.json()).studies.find(({ StudyInstanceUID }) => StudyInstanceUID === study);
  const replace = (known) => (known.splice(0, known.length, ...found.series), known);
  await source.retrieve.series.metadata({ StudyInstanceUID: study, filters: {}, customSort: replace });
}

// An archive is asked for those series that it has more of than OHIF knows.
async function refreshArchive({ displaySetService }, source, study) {
  const known = new Map();
  for (const { SeriesInstanceUID, instances = [] } of displaySetService.getActiveDisplaySets())
    known.set(SeriesInstanceUID, (known.get(SeriesInstanceUID) ?? 0) + instances.length);
  const found = await source.query.series.search(study);
  const grown = found.filter((one) => known.get(one.seriesInstanceUid) !== Number(one.numSeriesInstances));
  if (!grown.length) return;
  const forget = () => [study, `${source.getConfig?.().name}:${study}`].forEach(source.deleteStudyMetadataPromise);
  forget();
  const filters = { seriesInstanceUID: grown.map(({ seriesInstanceUid }) => seriesInstanceUid) };
  await source.retrieve.series.metadata({ StudyInstanceUID: study, filters });
  // Whoever asks next means the whole study.
  forget();
}

// Show a frame of the study in the active viewport; whether it is there.
export function go({ servicesManager, extensionManager }, shown, image, number = 1) {
  const { displaySetService, viewportGridService } = servicesManager.services;
  const [source] = extensionManager.getActiveDataSource();
  for (const displaySet of displaySetService.getActiveDisplaySets()) {
    if (!displaySet.images?.some(({ SOPInstanceUID }) => SOPInstanceUID === image)) continue;
    const frames = source.getImageIdsForDisplaySet(displaySet).map((imageId) => shown.frameOf(imageId));
    const index = frames.findIndex((one) => one?.image === image && one.number === number);
    if (index < 0) continue;
    const viewportId = viewportGridService.getActiveViewportId();
    const displaySetInstanceUIDs = [displaySet.displaySetInstanceUID];
    const [before] = viewportGridService.getDisplaySetsUIDsForViewport(viewportId) ?? [];
    if (before === displaySetInstanceUIDs[0] && shown.viewport) shown.viewport.setImageIdIndex(index);
    else viewportGridService.setDisplaySetsForViewports([{ viewportId, displaySetInstanceUIDs, viewportOptions: { initialImageOptions: { index } } }]);
    return true;
  }
  return false;
}

// Open another study in this OHIF.
export function openStudy(study) {
  const address = new URL(location);
  for (const name of [...address.searchParams.keys()].filter((one) => /^initial/i.test(one))) address.searchParams.delete(name);
  if (address.searchParams.has("url")) address.searchParams.set("url", new URL(`../dicomjson/${study}`, import.meta.url).href);
  else address.searchParams.set("StudyInstanceUIDs", study);
  location.assign(address);
}
