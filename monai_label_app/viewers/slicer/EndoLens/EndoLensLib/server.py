"""An EndoLens server, by its REST interface (docs/page.md)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import requests

DEFAULT = "http://127.0.0.1:8000"

SECONDS = (5, 300)
"""Patience with a server: to be reached, and between two bytes. The first map of a large network takes its time."""

# What OHIF is told lists every object of a study; these can be shown as pictures.
_PICTURES = {
    "1.2.840.10008.5.1.4.1.1.77.1.1": "still",
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": "video",
    "1.2.840.10008.5.1.4.1.1.7": "capture",
    "1.2.840.10008.5.1.4.1.1.7.1": "capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "capture",
    "1.2.840.10008.5.1.4.1.1.7.3": "capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "capture",
}


class ServerError(Exception):
    """What the server could not do, in a sentence for the reader."""


@dataclass(frozen=True)
class Model:
    """The network that the server asks."""

    title: str
    notice: str
    classes: tuple[str, ...]
    layers: tuple[str, ...]
    target_layer: str
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A study, as the list shows it."""

    uid: str
    title: str


@dataclass(frozen=True)
class Image:
    """An image of a study.

    Attributes:
        source: the network can be asked about it, for it is no result of EndoLens.
        video: it is a stream, of which Slicer reads no frame.
    """

    uid: str
    title: str
    frames: int
    size: int
    source: bool
    video: bool


@dataclass(frozen=True)
class Frame:
    """A frame of an image; numbers count from 1."""

    image: str
    number: int = 1


@dataclass(frozen=True)
class Evidence:
    """What a class is read from in a layer.

    Contours are (points, 2) of x and y, from the outer corner of the first pixel.
    """

    label: str
    layer: str
    probability: float
    sentence: str
    warnings: tuple[str, ...]
    contours: tuple[np.ndarray, ...]


class Server:
    """A server by its address, such as ``http://127.0.0.1:8000``; without ``http://`` it is added.

    All methods raise :class:`ServerError`.
    """

    def __init__(self, address: str) -> None:
        text = address.strip() or DEFAULT
        parts = urlsplit(text if "//" in text else f"http://{text}")
        try:
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number
            usable = False
        if not usable:
            raise ServerError(f"{text} is no address of a server; it should look like {DEFAULT}")
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._session = requests.Session()
        if token := os.environ.get("ENDOLENS_TOKEN"):  # for a server that asks who comes
            self._session.headers["Authorization"] = f"Bearer {token}"

    def model(self) -> Model:
        """The active network."""
        one = self._json("api/v1/models")[0]
        methods = tuple(method["name"] for method in one["methods"])
        title = f"{one['name']} {one['version']}"
        layers = tuple(one["layers"])
        return Model(title, one["notice"], tuple(one["classes"]), layers, one["target_layer"], methods)

    def studies(self) -> list[Study]:
        """All studies with endoscopy images."""
        return [_study(one) for one in self._json("api/v1/studies")]

    def images(self, study: str) -> list[Image]:
        """The images of a study, its sources and the results among them, in the order of the series."""
        sources = {one["sop_instance_uid"] for one in self._json(f"api/v1/studies/{quote(study)}")["images"]}
        listed = self._json(f"dicomjson/{quote(study)}")["studies"][0]["series"]
        objects = [one["metadata"] for series in listed for one in series["instances"]]
        return [_image(one, sources) for one in objects if one["SOPClassUID"] in _PICTURES]

    def file(self, image: str) -> bytes:
        """The DICOM file of an image."""
        return self._ask("GET", f"instances/{quote(image)}.dcm").content

    def size(self, frame: Frame) -> tuple[int, int]:
        """Width and height of a frame, as the server reads it."""
        answer = self._json(_path(frame))
        return answer["width"], answer["height"]

    def explanation(self, frame: Frame, method: str, layer: str, label: str) -> bytes:
        """A map in colours, to lay over its frame: a PNG file, clear where the map is zero."""
        query = {"method": method, "layer": layer, "class": label}
        return self._ask("GET", f"{_path(frame)}/explanation.png", params=query).content

    def evidence(self, frame: Frame, layer: str = "", label: str = "") -> Evidence:
        """What a class is read from; without layer and class the model's layer and the predicted class."""
        query = {name: value for name, value in (("layer", layer), ("class", label)) if value}
        one = self._json(f"{_path(frame)}/evidence", params=query)
        contours = tuple(np.array(region["contour"], dtype=float) for region in one["regions"])
        chosen = (one["class"], one["layer"], one["probability"])
        return Evidence(*chosen, one["sentence"], tuple(one["warnings"]), contours)

    def labels(self, frame: Frame) -> list[dict[str, Any]]:
        """What readers said of a frame, the oldest first."""
        return self._json(f"{_path(frame)}/labels")

    def correct(self, frame: Frame, said: dict[str, Any]) -> list[dict[str, Any]]:
        """Say what a frame shows: ``class``, ``by``, and if wanted ``region``, ``comment`` and ``model``."""
        return self._ask("POST", f"{_path(frame)}/labels", json=said).json()

    def _json(self, path: str, **options: Any) -> Any:
        answer = self._ask("GET", path, **options)
        try:
            return answer.json()
        except ValueError:
            raise ServerError(self._stranger()) from None

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        address = f"{self.address}/endolens/{path}"
        try:
            answer = self._session.request(method, address, timeout=SECONDS, **options)
        except requests.Timeout:
            raise ServerError(f"{self.address} does not answer in time; it may be busy, so try again later") from None
        except requests.RequestException:
            raise ServerError(
                f"No server answers at {self.address}. Is the address right, and does `endolens serve` run there?"
            ) from None
        if not answer.ok:
            raise ServerError(self._said(answer, path))
        return answer

    def _said(self, answer: requests.Response, path: str) -> str:
        # A server of another kind, as MONAI Label without us, answers in JSON too; 403 says why this computer may not.
        if answer.headers.get("content-type") == "application/problem+json" or answer.status_code == 403:
            try:
                return str(answer.json()["detail"])
            except (ValueError, KeyError, TypeError):
                return f"{self.address} does not let this computer in"
        if answer.status_code >= 500:
            return f"{self.address} failed with status {answer.status_code}; its log says why"
        return self._stranger() if path.startswith("api/") else "it is no longer there; load the study again"

    def _stranger(self) -> str:
        return f"{self.address} answers, but is no EndoLens server. Is the address right?"


def _path(frame: Frame) -> str:
    return f"api/v1/images/{quote(frame.image)}/frames/{frame.number}"


def _study(one: dict[str, Any]) -> Study:
    date = "-".join(filter(None, [one["date"][:4], one["date"][4:6], one["date"][6:8]]))
    parts = [one["patient"], one["patient_id"], date, one["description"], f"{len(one['images'])} images", one["state"]]
    return Study(one["uid"], ", ".join(filter(None, parts)))


def _image(one: dict[str, Any], sources: set[str]) -> Image:
    frames = int(one.get("NumberOfFrames") or 1)
    kind = one.get("SeriesDescription") or _PICTURES[one["SOPClassUID"]]
    title = f"{kind} {one.get('InstanceNumber') or ''}".strip()
    size = frames * int(one.get("Rows") or 0) * int(one.get("Columns") or 0) * int(one.get("SamplesPerPixel") or 1)
    source = one["SOPInstanceUID"] in sources
    video = _PICTURES[one["SOPClassUID"]] == "video" and not source
    return Image(one["SOPInstanceUID"], title, frames, size, source, video)
