// EndoLens in OHIF: what a stock, built OHIF loads at run time, named under "extensions" in its app-config.
//
// Here is only what puts the panel among OHIF's own; the rest is loaded once the panel is shown.

const ID = "endolens";
export const PANEL = `${ID}.panelModule.${ID}`;
// In the session: the image that another study was opened for, to be reviewed.
export const REVIEW = "endolens-review";
const RETRY_MILLISECONDS = 5000;

export default {
  id: ID,

  getPanelModule(managers) {
    // One function for all renderings: React calls another one anew each time.
    const start = (panel) => panel && show(panel, managers);
    const component = () => element("endolens-panel", start);
    return [{ name: ID, label: "EndoLens", iconLabel: "EndoLens", iconName: "tab-roi-threshold", component }];
  },

  onModeEnter({ servicesManager }) {
    const { displaySetService, panelService, viewportGridService } = servicesManager.services;
    displaySetService.subscribe(displaySetService.EVENTS.DISPLAY_SETS_ADDED, ({ displaySetsAdded }) => {
      displaySetsAdded.forEach(showFrame);
      if (displaySetService.getActiveDisplaySets().some(selectsImages)) showImages(displaySetService);
    });
    panelService.addPanel(panelService.PanelPosition.Right, PANEL);
    if (!sessionStorage.getItem(REVIEW)) return;
    const { unsubscribe } = viewportGridService.subscribe(viewportGridService.EVENTS.VIEWPORTS_READY, () => {
      unsubscribe();
      panelService.activatePanel(PANEL, true);
    });
  },
};

// A Key Object Selection, which OHIF lists and does not open.
export function selectsImages(displaySet) {
  return displaySet.unsupported && displaySet.SOPClassUID === "1.2.840.10008.5.1.4.1.1.88.59";
}

async function showImages(displaySetService) {
  try {
    const { showKeyObjects } = await import("./key-objects.js");
    showKeyObjects(displaySetService);
  } catch (error) {
    console.warn("EndoLens:", error);
  }
}

// OHIF has no thumbnail of a video.
function showFrame(displaySet) {
  if (displaySet.viewportType === "video") displaySet.thumbnailSrc = new URL(`../instances/${displaySet.SOPInstanceUID}.jpg`, import.meta.url).href;
}

async function show(panel, managers) {
  try {
    await import("./panel.js");
    panel.start(managers);
  } catch (error) {
    console.warn("EndoLens:", error);
    panel.textContent = "EndoLens does not answer. It is tried again.";
    setTimeout(() => panel.isConnected && show(panel, managers), RETRY_MILLISECONDS);
  }
}

// As React.createElement makes it; OHIF gives an extension no React of its own.
function element(type, ref) {
  return { $$typeof: Symbol.for("react.element"), type, key: null, ref, props: {}, _owner: null };
}
