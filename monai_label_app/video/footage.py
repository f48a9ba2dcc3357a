"""The videos of a study, top to bottom: samples → segments → stills and clips → the analysis of the stills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import Dataset

from monai_label_app import analysis
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.files import TIMELINE, read_dicom
from monai_label_app.folder import temporary
from monai_label_app.observed.metrics import counted
from monai_label_app.results import USUAL, StudyResult, Wanted, write
from monai_label_app.study import Instance, Problem, Study
from monai_label_app.video.choice import Still, stills
from monai_label_app.video.clips import Clip, cut
from monai_label_app.video.recording import Recording
from monai_label_app.video.sampling import RATE, Samples, expected_samples, sample
from monai_label_app.video.segments import spans
from monai_label_app.video.timeline import Part, Watched, write_timeline
from report.completeness import landmarks
from report.endoscopic_video import Stream, video_clip, video_still
from report.findings import Footage, Segment, as_reported
from report.uids import derive

_CUT_OFF = 1.0
"""Seconds by which a video may end sooner than it announces: recorders round."""


@counted()
def analyze(
    study: Study,
    classifier: Classifier,
    folder: Path,
    journals: Path,
    rate: float | None = RATE,
    progress: Callable[[int], None] = lambda frames: None,
    wanted: Wanted = USUAL,
) -> StudyResult:
    """Analyse a study with its videos, of each still as :func:`monai_label_app.analysis.analyze` does.

    Args:
        study: images and videos; one without videos is analysed as it is.
        classifier: the network.
        folder: exists; gets what an analysis writes, and ``clips/`` and ``timeline.html``.
        journals: exists; keeps what was classified until :func:`forget`, so that an interrupted analysis goes on.
        rate: frames a second that are looked at; None for every frame.
        progress: called with the number of frames that are done since the last call; what it raises ends the work.
        wanted: which objects.
    """
    watched: list[Watched] = []
    problems: list[Problem] = []
    written: dict[Path, None] = {}
    # Stills wait in files, so that those of a long video do not fill the memory.
    with temporary() as waiting:
        for recording in study.recordings:
            samples = sample(
                recording.movie, classifier, _journal(recording, classifier, journals, rate), rate, progress
            )
            if reason := _cut_off(recording, samples):
                problems.append(Problem(recording.movie.origin, reason))
            parts = tuple(_parts(recording, samples, classifier, rate, folder / "clips", waiting))
            watched.append(Watched(recording.movie.origin, samples, parts))
            written.update(dict.fromkeys(part.clip.path for part in parts))
        chosen = tuple(part.still for one in watched for part in one.parts if part.still)
        images = Study(study.uid, (*study.instances, *chosen))
        footage = _footage(watched, classifier.card.classes)
        result = analysis.analyze(images, classifier, folder, progress, wanted, footage)
    result.problems += problems
    if study.recordings:
        result.files += written
        result.objects += (path.with_suffix(".dcm") for path in written)
        _describe(result, watched, classifier, folder)
    return result


def expected(study: Study, rate: float | None = RATE) -> int:
    """How many frames of its images and videos an analysis will look at, by what they announce."""
    return study.frame_count + sum(expected_samples(recording.movie, rate) for recording in study.recordings)


def forget(study: Study, classifier: Classifier, journals: Path, rate: float | None) -> None:
    """Remove what was kept of an analysis that is done."""
    for recording in study.recordings:
        _journal(recording, classifier, journals, rate).unlink(missing_ok=True)


def _journal(recording: Recording, classifier: Classifier, folder: Path, rate: float | None) -> Path:
    identity = recording.header.SOPInstanceUID, classifier.card.name, classifier.fingerprint, rate
    return folder / f".{derive('samples', *identity)}.jsonl"


def _cut_off(recording: Recording, samples: Samples) -> str:
    """Why a video could not be watched to its end, as a sentence; empty if it was."""
    movie = recording.movie
    end = float(samples.frame_times[-1]) + 1 / movie.rate if len(samples) else 0.0
    if end >= movie.duration - _CUT_OFF:
        return ""
    return (
        f"{movie.origin} is cut off or damaged: it announces {movie.duration:.1f} s and can be read up to {end:.1f} s; "
        "what is there was analysed"
    )


def _parts(
    recording: Recording,
    samples: Samples,
    classifier: Classifier,
    rate: float | None,
    clips: Path,
    waiting: Path,
) -> Iterator[Part]:
    """Each segment of a video, with its still and its clip."""
    movie, classes = recording.movie, classifier.card.classes
    found = spans(samples, classes, 1 / (rate or movie.rate))
    chosen = stills(movie, samples, found, classes)
    for number, (span, still) in enumerate(zip(found, chosen, strict=True), start=1):
        clips.mkdir(exist_ok=True)
        middle = still.time if still else (span.start + span.end) / 2
        clip, clip_object = _clip(
            recording, cut(movie, span.start, span.end, middle, clips / "part.mp4"), span.label, number
        )
        video = recording.header if recording.stored else clip_object
        segment = Segment(span.label, span.start, span.end, span.peak, span.mean, video=str(video.SOPInstanceUID))
        if not recording.stored:
            segment = replace(segment, begun=clip.start, ended=clip.end)
        if still is None:
            yield Part(segment, clip, video)
            continue
        place = _place(still, clip)
        image = _still(recording, still, clip_object, place, number, waiting)
        seen = still.number if recording.stored else place
        segment = replace(segment, still=str(image.header.SOPInstanceUID), time=still.time, frame=seen)
        yield Part(segment, clip, video, image)


def _clip(recording: Recording, clip: Clip, label: str, number: int) -> tuple[Clip, Dataset]:
    """Write a clip as DICOM too, and name both files by its UID; with the header of that."""
    shape = clip.frames, float(clip.rate), clip.width, clip.height, clip.level
    stream = Stream(clip.path.read_bytes(), *shape)
    made = video_clip(
        recording.header, stream, clip.start, clip.end, recording.coding, label, number, copied=clip.copied
    )
    write(made, clip.path.parent, [])
    path = clip.path.replace(clip.path.with_name(f"{made.SOPInstanceUID}.mp4"))
    del made.PixelData
    return replace(clip, path=path), made


def _place(still: Still, clip: Clip) -> int:
    """The number of a still in a clip."""
    return min(max(1, round((still.time - clip.start) * float(clip.rate)) + 1), clip.frames)


def _still(
    recording: Recording, still: Still, clip_object: Dataset, place: int, number: int, waiting: Path
) -> Instance:
    sources = [(clip_object, place)]
    if recording.stored:
        sources.insert(0, (recording.header, still.number))
    made = video_still(recording.header, still.pixels, still.number, still.time, recording.coding, number, sources)
    path = write(made, waiting, [])
    del made.PixelData
    return Instance(f"{recording.movie.origin}, {still.time:.2f} s", made, partial(read_dicom, path), converted=True)


def _footage(watched: list[Watched], classes: tuple[str, ...]) -> Footage:
    segments = tuple(part.segment for one in watched for part in one.parts)
    seen = landmarks(classes, [one.label for one in segments]) if watched else {}
    looked_at = sum(one.samples.classified for one in watched)
    videos = {part.video.SOPInstanceUID: part.video for one in watched for part in one.parts}
    sampled = sum(len(one.samples) for one in watched)
    return Footage(segments, looked_at, sampled, tuple(seen.items()), tuple(videos.values()))


def _describe(result: StudyResult, watched: list[Watched], classifier: Classifier, folder: Path) -> None:
    """Write the timeline, and the lines of the summary."""
    page = folder / TIMELINE
    write_timeline(watched, result, classifier, page)
    result.files.append(page)
    for one in watched:
        result.videos.append(_video_line(one, classifier, page))
        result.segments += (_segment_line(one.origin, part, folder) for part in one.parts)


def _video_line(one: Watched, classifier: Classifier, page: Path) -> dict[str, Any]:
    samples = one.samples
    return {
        "source": one.origin,
        "seconds": round(samples.duration, 3),
        "sampled": len(samples),
        "classified": samples.classified,
        "left_out": {reason: round(share, 4) for reason, share in samples.shares.items()},
        "landmarks": landmarks(classifier.card.classes, [part.segment.label for part in one.parts]),
        "timeline": str(page),
    }


def _segment_line(origin: str, part: Part, folder: Path) -> dict[str, Any]:
    segment, clip = part.segment, part.clip
    still = folder / "stills" / f"{segment.still}.dcm"
    return {
        "source": origin,
        "class": segment.label,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "peak": as_reported(segment.peak),
        "mean": as_reported(segment.mean),
        "still": str(still) if part.still and still.exists() else None,
        "still_time": round(segment.time, 3) if part.still else None,
        "clip": str(clip.path),
        "clip_dicom": str(clip.path.with_suffix(".dcm")),
        "clip_start": round(clip.start, 3),
        "clip_end": round(clip.end, 3),
        "clip_coding": "copied" if clip.copied else "coded anew",
    }
