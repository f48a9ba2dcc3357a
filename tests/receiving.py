"""Images that are given to a receiver as a node on the network gives them."""

from __future__ import annotations

import io

import numpy as np
from pydicom import Dataset

from monai_label_app.listening.receiving import Receiver
from monai_label_app.listening.store import Store
from tests.dicom_files import image


def take(receiver: Receiver, dataset: Dataset) -> str:
    """Send an object to a receiver, in two parts."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    arriving = receiver.arriving()
    arriving.write(stream.getvalue()[:1000])
    arriving.write(stream.getvalue()[1000:])
    return receiver.take(arriving, "it")


def received(store: Store, **attributes: object) -> Dataset:
    """An image of a study that is complete at once."""
    one = image(np.full((64, 64, 3), 90, np.uint8), **attributes)
    assert take(Receiver(store, 0, 0), one) == "stored"
    return one
