"""What the routes work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monai_label_app.datastore import StudyDatastore
from monai_label_app.jobs import Jobs
from monai_label_app.library import Library
from monai_label_app.uploads import Uploads
from monai_label_app.video.player import Player
from monai_label_app.viewers.ohif import Viewer
from monai_label_app.web.explorer import Explorer
from monai_label_app.web.reporting import Reporting


@dataclass(frozen=True)
class Services:
    """Given to every subject of the REST interface and to every page.

    Attributes:
        library: the studies.
        player: their videos.
        explorer: opens their frames.
        viewer: OHIF, for the links to it.
        pacs: the library is a PACS, so OHIF reads from there.
        uploads: that are under way.
        jobs: analyses that wait or run.
        datastore: MONAI Label's, which keeps what doctors say; asked for at each use.
        reporting: the studies' reports.
    """

    library: Library
    player: Player
    explorer: Explorer
    viewer: Viewer
    pacs: bool
    uploads: Uploads
    jobs: Jobs
    datastore: Callable[[], StudyDatastore]
    reporting: Reporting
