// What OHIF's active viewport shows: which frame, where on the screen, and what a reader drew on it.
//
// Events: "frame" when it is another one, or none; "moved" when it was drawn, maybe elsewhere.

const TOLERANCE = 0.01; // of a frame: a video's times are rounded
const CORNERSTONE = "@ohif/extension-cornerstone.utilityModule.common";

export class ActiveViewport extends EventTarget {
  #services;
  #cornerstone;
  #tools;
  #shown = "";
  #ending = new AbortController();
  #subscriptions;

  constructor({ servicesManager, extensionManager }) {
    super();
    this.#services = servicesManager.services;
    const libraries = extensionManager.getModuleEntry(CORNERSTONE).exports.getCornerstoneLibraries();
    this.#cornerstone = libraries.cornerstone;
    this.#tools = libraries.cornerstoneTools;
    const look = () => this.#look();
    const { viewportGridService, cornerstoneViewportService } = this.#services;
    const { ACTIVE_VIEWPORT_ID_CHANGED, GRID_STATE_CHANGED, VIEWPORTS_READY } = viewportGridService.EVENTS;
    this.#subscriptions = [
      ...[ACTIVE_VIEWPORT_ID_CHANGED, GRID_STATE_CHANGED, VIEWPORTS_READY].map((event) => viewportGridService.subscribe(event, look)),
      cornerstoneViewportService.subscribe(cornerstoneViewportService.EVENTS.VIEWPORT_DATA_CHANGED, look),
    ];
    const { Events } = this.#cornerstone.Enums;
    const { signal } = this.#ending;
    // They do not bubble; caught on their way down, those of all viewports come by, whichever there will be.
    for (const event of [Events.CAMERA_MODIFIED, Events.IMAGE_RENDERED, Events.STACK_NEW_IMAGE])
      document.addEventListener(event, ({ target }) => target === this.element && this.#look(), { capture: true, signal });
    for (const event of [Events.ELEMENT_ENABLED, Events.ELEMENT_DISABLED]) {
      this.#cornerstone.eventTarget.addEventListener(event, look);
      signal.addEventListener("abort", () => this.#cornerstone.eventTarget.removeEventListener(event, look));
    }
  }

  close() {
    this.#ending.abort();
    for (const { unsubscribe } of this.#subscriptions) unsubscribe();
  }

  // Of a viewport that shows one picture at a time; undefined where there is none.
  get viewport() {
    const { viewportGridService, cornerstoneViewportService } = this.#services;
    const viewport = cornerstoneViewportService.getCornerstoneViewport(viewportGridService.getActiveViewportId());
    const { STACK, VIDEO } = this.#cornerstone.Enums.ViewportType;
    return viewport?.element?.isConnected && [STACK, VIDEO].includes(viewport.type) ? viewport : undefined;
  }

  get element() {
    return this.viewport?.element;
  }

  // { study, image, number }: UIDs, and the number of the frame, from 1, of a video also their count and its time in
  // seconds; undefined while there is none.
  get frame() {
    return this.#isVideo ? this.#frameOfVideo() : this.frameOf(this.viewport?.getCurrentImageId?.());
  }

  get #isVideo() {
    return this.viewport?.type === this.#cornerstone.Enums.ViewportType.VIDEO;
  }

  // Cornerstone rounds to the nearest frame; the one that is seen is the last that began.
  #frameOfVideo() {
    const { currentTime, duration } = this.viewport.videoElement;
    const imageId = this.viewport.getCurrentImageId(0);
    const frame = this.frameOf(imageId);
    if (!frame || !duration) return undefined;
    const { NumberOfFrames: count } = this.#cornerstone.metaData.get("instance", imageId);
    const begun = Math.floor((currentTime * count) / duration + TOLERANCE);
    return { ...frame, number: Math.min(begun + 1, Number(count)), count, time: currentTime };
  }

  get playing() {
    return this.#isVideo && !this.viewport.videoElement.paused;
  }

  // A browser that is stopped in between may have drawn a later frame of the video than its time tells. It is put to its
  // frame's first half, for which Cornerstone counts the same frame.
  settle() {
    const { number, count, time } = this.frame ?? {};
    if (!count) return;
    const place = ((number - 0.75) * this.viewport.videoElement.duration) / count;
    if (Math.abs(time - place) > 0.001) this.viewport.setTime(place);
  }

  frameOf(imageId) {
    const instance = imageId && this.#cornerstone.metaData.get("instance", imageId);
    if (!instance) return undefined;
    const [, number = 1] = imageId.match(/(?:\/frames\/|[?&]frame=)(\d+)/) ?? [];
    return { study: instance.StudyInstanceUID, image: instance.SOPInstanceUID, number: Number(number) };
  }

  // Width and height of the frame in its own pixels, and the CSS matrix that lays these onto the viewport's element.
  get geometry() {
    const { imageData } = this.viewport?.getImageData() ?? {};
    if (!imageData) return undefined;
    const [width, height] = imageData.getDimensions();
    // Indices name the middle of a pixel, of a video its corner.
    const half = this.#isVideo ? 0 : 0.5;
    const at = (x, y) => this.viewport.worldToCanvas(imageData.indexToWorld([x - half, y - half, 0]));
    const [[left, top], across, down] = [at(0, 0), at(width, 0), at(0, height)];
    const matrix = [
      ...[across[0] - left, across[1] - top].map((length) => length / width),
      ...[down[0] - left, down[1] - top].map((length) => length / height),
      left,
      top,
    ];
    return { width, height, matrix };
  }

  // The region that was selected or else drawn last on the frame, [[x, y], …] in its pixels; empty where there is none.
  region() {
    const imageId = this.viewport?.getCurrentImageId?.();
    const { state, selection } = this.#tools.annotation;
    const drawn = state.getAllAnnotations().filter(({ metadata, data }) => metadata?.referencedImageId === imageId && outline(metadata, data));
    const chosen = drawn.find(({ annotationUID }) => selection.isAnnotationSelected(annotationUID)) ?? drawn.at(-1);
    if (!chosen) return [];
    const { imageData } = this.viewport.getImageData();
    const size = imageData.getDimensions();
    const inPixels = (value, axis) => Math.round(10 * Math.min(size[axis], Math.max(0, value + 0.5))) / 10;
    const points = outline(chosen.metadata, chosen.data).map((point) => [...imageData.worldToIndex(point)].slice(0, 2).map(inPixels));
    return thinned(points);
  }

  #look() {
    const frame = this.frame;
    const shown = frame ? `${frame.image} ${frame.number} ${frame.time}` : "";
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.dispatchEvent(new Event("frame"));
    }
    this.dispatchEvent(new Event("moved"));
  }
}

// Corners of a rectangle or points of a freehand curve, in the patient's space; undefined for other annotations.
function outline({ toolName }, { contour, handles }) {
  if (contour?.polyline?.length > 2) return contour.polyline;
  if (toolName !== "RectangleROI") return undefined;
  const [topLeft, topRight, bottomLeft, bottomRight] = handles.points;
  return [topLeft, topRight, bottomRight, bottomLeft];
}

// A freehand curve has several points a pixel; one is enough.
function thinned(points) {
  const kept = [];
  for (const point of points) {
    const [x, y] = kept.at(-1) ?? [-Infinity, -Infinity];
    if (Math.hypot(point[0] - x, point[1] - y) >= 1) kept.push(point);
  }
  return kept;
}
