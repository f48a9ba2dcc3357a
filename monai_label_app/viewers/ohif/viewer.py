"""Serve a built OHIF and tell it where the studies are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.uid import EncapsulatedPDFStorage

from monai_label_app.study import Instance, Study
from monai_label_app.viewers.segmentations import as_assumed
from monai_label_app.viewers.videos import as_played, is_played

_FOREIGN = re.compile(r"""@import\s+url\(["']?https?:[^)]*\)[^;]*;|<link\b[^>]*href=["']?https?:[^>]*>""")

_INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)

_TAMED = """
// OHIF greets every new user with a tour of its buttons, laid over the study; count it as seen.
localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));
// Without a handler of its own OHIF 3.10 calls every image that it loads in one piece an error.
window.config.httpErrorHandler = (error) => console.warn('image:', error);
"""

_MENDED = {
    # Opening a report from a manifest, OHIF 3.10 looks for a series that it made up itself, does not find it, and fails
    # on what it takes instead.
    "study.series.find(s => s.SeriesInstanceUID === SeriesInstanceUID) || []": (
        "study.series.find(s => s.SeriesInstanceUID === SeriesInstanceUID) || { instances: [] }"
    ),
    # Its player takes a video for a volume, and fails.
    "const volumeIds = viewport.getAllVolumeIds();": "const volumeIds = viewport.getAllVolumeIds?.();",
    # It lists a video with a black picture, though it knows where the video's thumbnail is.
    "const imageSrc = thumbnailImageSrcMap[ds.displaySetInstanceUID];": (
        "const imageSrc = thumbnailImageSrcMap[ds.displaySetInstanceUID]"
        " ?? (ds.viewportType === 'video' ? ds.thumbnailSrc : undefined);"
    ),
    # It reads a Segmentation's orientation in the object, which has none: the regions lie as their picture does.
    "validOrientations = Segmentation_4X_getValidOrientations(ImageOrientationPatient);": (
        "validOrientations = Segmentation_4X_getValidOrientations(ImageOrientationPatient);"
        " for (const frame of [multiframe.PerFrameFunctionalGroupsSequence].flat())"
        " frame.PlaneOrientationSequence ??= { ImageOrientationPatient };"
    ),
    # It stays at the first picture of the series, whichever the regions are of.
    "utils_promptHydrateSEG({\n      servicesManager,\n      viewportId,\n      segDisplaySet,\n      preHydrate": (
        "const viewport = window.cornerstone.getEnabledElementByViewportId(viewportId)?.viewport;"
        " const first = segDisplaySet.images.find((_, index) => segDisplaySet.segmentsOnFrame[index]?.length);"
        " if (first) viewport?.setImageIdIndex?.(viewport.getImageIds().indexOf(first.referencedImageId));"
        " utils_promptHydrateSEG({ servicesManager, viewportId, segDisplaySet, preHydrate"
    ),
    # It takes all pictures of a series to be of the size of the segmented one, and draws over all what lies over one:
    # it asks where they are in space, which is nowhere.
    "scalarData.set(volumeScalarData.slice(": (
        "if (scalarData.length === segDisplaySet.instance.Rows * segDisplaySet.instance.Columns)"
        " scalarData.set(volumeScalarData.slice("
    ),
    "viewport.isReferenceViewable({ referencedImageId: labelmapImageId }, { asOverlay: true })": (
        "((image) => viewport.getImageIds().includes(image) ? image === viewport.getCurrentImageId() :"
        " viewport.isReferenceViewable({ referencedImageId: labelmapImageId }, { asOverlay: true }))"
        "(window.cornerstone.cache.getImage(labelmapImageId)?.referencedImageId)"
    ),
    "stackViewport.isReferenceViewable({ referencedImageId: labelmapImageId, sliceIndex: index }, "
    "{ asOverlay: true, withNavigation: true })": (
        "((image) => imageIds.includes(image) ? image === imageIds[index] :"
        " stackViewport.isReferenceViewable({ referencedImageId: labelmapImageId, sliceIndex: index }, "
        "{ asOverlay: true, withNavigation: true }))"
        "(window.cornerstone.cache.getImage(labelmapImageId)?.referencedImageId)"
    ),
    # Of a manifest's image of several frames it shows the next frame, or none, until the file is there.
    "loadImageFromPromise(dataSetPromise, imageId, parsedImageId.frame,": (
        "loadImageFromPromise(dataSetPromise, imageId, parsedImageId.pixelDataFrame,"
    ),
    # It draws what a Segmentation says of the second frame over the first, the only one that it knows here.
    'Number(imageId.split("frame=")[1]);\n  return imageIdFrameNumber === frameNumber - 1 ?': (
        'Number(imageId.split("frame=")[1]);\n  return imageIdFrameNumber === frameNumber ?'
    ),
    # OHIF 3.13 reads regions that do not fill whole bytes from the wrong end of a byte, and stumbles over padding.
    "if (!(totalBytes !== length)) {": "if (!(totalBytes + (totalBytes % 2) !== length)) {",
    "allPixelData = stream.readArrayBuffer(totalBytes);": "allPixelData = stream.readArrayBuffer(length);",
    "bitValue = sourceByte >> 7 - sourceBitIndex & 1;": "bitValue = sourceByte >> sourceBitIndex & 1;",
    "frameView[targetByteIndex] |= 1 << 7 - targetBitIndex;": "frameView[targetByteIndex] |= 1 << targetBitIndex;",
}
"""Expressions in OHIF's scripts, and what must stand there."""

EXTENSION_ADDRESS = "/endolens/ohif/extension.js"

_IDENTITY = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")

_KEPT_AS_LISTS = frozenset({"ContentSequence", "PersonName"})
"""What OHIF takes for a list even where it holds one value; of all other sequences it reads one item's attributes."""


class Viewer:
    """A built OHIF.

    Args:
        folder: of its ``index.html``; by default the build that comes with MONAI Label.

    Attributes:
        base: the path that the build was made for, ``/ohif/`` or ``/``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or _bundled()).resolve()
        try:
            index = (self.folder / "index.html").read_text(encoding="utf-8")
        except OSError:
            raise ValueError(f"{self.folder} is not a built OHIF: it has no index.html") from None
        match = re.search(r"""PUBLIC_URL\s*=\s*["']([^"']*)["']""", index)
        self.base = "/" + match.group(1).strip("/") + "/" if match and match.group(1).strip("/") else "/"

    def policy(self, path: Path) -> str:
        """Content-Security-Policy of a file: what OHIF cannot do without, and no other server.

        Its libraries write styles into the page, decode pictures by WebAssembly, make code as they go (without which no
        Segmentation is shown), and make workers and pictures themselves (``blob:``). Of scripts in the page those of
        the build run, named by what they say. A script has a policy of its own where it is a worker.
        """
        if path.suffix == ".js":
            return "default-src 'self' data: blob:; script-src 'self' 'unsafe-eval' blob:"
        scripts = " ".join(f"'sha256-{one}'" for one in self._inline)
        return (
            f"default-src 'self'; script-src 'self' 'unsafe-eval' {scripts}; worker-src 'self' blob:; "
            "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
            "connect-src 'self' data: blob:; media-src 'self' blob:; object-src 'self' blob:; frame-src 'self' blob:; "
            "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
        )

    @cached_property
    def _inline(self) -> list[str]:
        """Hashes of the scripts in its page."""
        found = dict.fromkeys(_INLINE.findall(mended(self.folder / "index.html") or ""))
        return [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in found]

    def file(self, path: str) -> Path:
        """The file for a path under :attr:`base`; any other address is one of OHIF's pages, its index."""
        target = (self.folder / path).resolve()
        inside = target.is_relative_to(self.folder) and target.is_file()
        return target if inside else self.folder / "index.html"

    def paths(self) -> list[str]:
        """Route patterns of the viewer: all under its base, or, built for the root, its own files and addresses."""
        if self.base != "/":
            return [self.base + "{path:path}"]
        own = [f"/{one.name}" + ("/{path:path}" if one.is_dir() else "") for one in sorted(self.folder.iterdir())]
        return ["/", "/viewer", "/viewer/{path:path}", *own]

    def address(self, study: str, pacs: bool) -> str:
        """Path and query that open a study: from the PACS, or from the manifest of a folder's study."""
        if pacs:
            return f"{self.base}viewer?StudyInstanceUIDs={study}"
        return f"{self.base}viewer/dicomjson?url=/endolens/dicomjson/{study}"

    def configuration(self, pacs: bool) -> str:
        """``app-config.js``: the data source, and nothing fetched from elsewhere."""
        root = "/endolens/dicomweb"
        dicomweb = {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": {
                "friendlyName": "PACS",
                "qidoRoot": root,
                "wadoRoot": root,
                "wadoUriRoot": root,
                "qidoSupportsIncludeField": True,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "singlepart": "bulkdata,video",
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            },
        }
        dicomjson = {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomjson",
            "sourceName": "dicomjson",
            "configuration": {"friendlyName": "Folder", "name": "json"},
        }
        # OHIF 3.13 asks it, where there is one, for each frame of a Segmentation; the other names the first each time.
        local = {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomlocal",
            "sourceName": "dicomlocal",
            "configuration": {"friendlyName": "Frames"},
        }
        config = {
            "routerBasename": self.base,
            "showStudyList": pacs,
            "extensions": [EXTENSION_ADDRESS],
            "modes": [],
            "maxNumberOfWebWorkers": 3,
            "showWarningMessageForCrossOrigin": False,
            "showCPUFallbackMessage": True,
            "showLoadingIndicator": True,
            "strictZSpacingForVolumeViewport": True,
            "defaultDataSourceName": "dicomweb" if pacs else "dicomjson",
            "dataSources": [dicomweb] if pacs else [dicomjson, local],
        }
        return f"window.config = {json.dumps(config, indent=1)};\n{_TAMED}"


@lru_cache(maxsize=256)
def mended(path: Path) -> str | None:
    """The text of a file of OHIF where it must differ from the build, None where it must not.

    Pages and style sheets lose their references to fonts of other servers: a hospital's viewer asks nobody else.
    """
    if path.suffix in (".html", ".css"):
        return _FOREIGN.sub("", path.read_text(encoding="utf-8"))
    if path.suffix == ".js":
        text = path.read_text(encoding="utf-8")
        wrong = [one for one in _MENDED if one in text]
        for one in wrong:
            text = text.replace(one, _MENDED[one])
        return text if wrong else None
    return None


@lru_cache(maxsize=256)
def version(path: Path) -> str:
    """What tells a file of OHIF, as it is served, from an earlier one of its name."""
    text = mended(path)
    content = path.read_bytes() if text is None else text.encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _bundled() -> Path:
    # Found without importing monailabel, which takes seconds.
    package = find_spec("monailabel")
    if package is None or package.origin is None:
        raise ValueError("monailabel, which brings OHIF, is not installed")
    return Path(package.origin).parent / "endpoints" / "static" / "ohif"


def manifest(study: Study, address: str) -> dict[str, Any]:
    """OHIF's ``dicomjson`` manifest of a study.

    Args:
        study: with all its objects.
        address: of the server, without a slash at the end; every instance's URL starts with it.
    """
    series: dict[str, list[dict[str, Any]]] = {}
    for instance in study.instances:
        place = f"{address}/endolens/instances/{instance.header.SOPInstanceUID}"
        metadata = naturalised(as_assumed(instance.header) or as_played(instance.header) or instance.header)
        url = f"{place}.mp4" if is_played(instance) else f"dicomweb:{place}.dcm"
        entry: dict[str, Any] = {"metadata": metadata, "url": url}
        if instance.header.SOPClassUID == EncapsulatedPDFStorage:
            entry["metadata"]["EncapsulatedDocument"] = {"DirectRetrieveURL": f"{place}.pdf"}
        series.setdefault(str(instance.header.SeriesInstanceUID), []).extend(_of_frames(instance, entry))
    first = study.instances[0].header
    described = ("PatientID", "PatientName", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber")
    return {
        "studies": [
            {
                "StudyInstanceUID": study.uid,
                # OHIF gives them to every instance, so that empty means the same in both.
                **{keyword: str(first.get(keyword, "")) or None for keyword in described},
                "NumInstances": len(study.instances),
                "Modalities": "\\".join(sorted({str(one.header.get("Modality") or "OT") for one in study.instances})),
                "series": [
                    {
                        "SeriesInstanceUID": uid,
                        "SeriesNumber": instances[0]["metadata"].get("SeriesNumber"),
                        "Modality": instances[0]["metadata"].get("Modality"),
                        "SeriesDescription": instances[0]["metadata"].get("SeriesDescription", ""),
                        "instances": instances,
                    }
                    for uid, instances in series.items()
                ],
            }
        ]
    }


def _of_frames(instance: Instance, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The entry of an instance, or one for each of its frames by number, without which OHIF shows the first alone."""
    if instance.refusal is not None or is_played(instance) or instance.frame_count == 1:
        return [entry]
    # All are of one object, of which OHIF reads the first.
    named = {keyword: str(instance.header[keyword].value) for keyword in _IDENTITY}
    metadata = [entry["metadata"], *[named] * (instance.frame_count - 1)]
    return [{"metadata": one, "url": f"{entry['url']}?frame={number}"} for number, one in enumerate(metadata, start=1)]


def naturalised(dataset: Dataset) -> dict[str, Any]:
    """A dataset as OHIF keeps metadata: values by keyword, single values bare, no pixels and no private elements."""
    values: dict[str, Any] = {}
    for tag, element in dataset.to_json_dict(suppress_invalid_tags=True).items():
        keyword = keyword_for_tag(int(tag, 16))
        if not keyword or tag.startswith("7FE0"):
            continue
        value = element.get("Value", [])
        if element["vr"] == "SQ":
            items = [naturalised(Dataset.from_json(item)) for item in value]
            values[keyword] = items[0] if len(items) == 1 and keyword not in _KEPT_AS_LISTS else items
        else:
            # An empty value is null: OHIF takes objects with differently empty patient IDs for several patients.
            several = len(value) > 1 or keyword in _KEPT_AS_LISTS
            values[keyword] = value if several else next(iter(value), None)
    return values
