"""What an audit comes to: numbers of every class, and the shortcuts in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_label_app.classifier.artifacts import ARTIFACTS, BOX
from monai_label_app.classifier.audit import ELSEWHERE, Audit, Look

SHARE, EXCESS, MOVE, FRAMES = 0.1, 2.0, 0.1, 3

RULES = (
    f"A shortcut is named where, on {FRAMES} frames at least, an artifact holds {SHARE:.0%} of the evidence and "
    f"{EXCESS:g} times its share of the frame, or planting a box raises a class by {MOVE:.2f} over the frame as it is "
    "and over paint in the box's place."
)

NO_SHORTCUT = "No shortcut was found by these rules."

MOMENTS = ("before", "box", "paint")


def summary(result: Audit) -> dict[str, Any]:
    """The audit as plain numbers; None where there is nothing to take a mean of.

    Of every class:

    - ``carries`` counts its frames by the artifacts on them.
    - ``evidence``, of every artifact and of elsewhere: of the frames that are predicted as the class, carry it, and
      have any evidence, the mean share of the evidence, also apart for right and wrong ones, and the mean share of the
      frame, which is what a map that knows nothing would have there.
    - ``removed``: the mean probability of the class before and after, of the same frames (``predicted``), and of those
      that are truly of it (``true``).
    - ``planted``: the mean probability of the class on clean frames of other classes.
    """
    by_class: dict[str, Any] = {}
    for index, name in enumerate(result.classes):
        said = [look for look in result.looks if look.predicted == name and look.shares]
        true = [look for look in result.looks if look.example.label == name]
        others = [planting for planting in result.plantings if planting.example.label != name]
        by_class[name] = {
            "images": len(true),
            "carries": {kind: sum(kind in look.areas for look in true) for kind in ARTIFACTS},
            "evidence": {place: _evidence(said, place) for place in (*ARTIFACTS, ELSEWHERE)},
            "removed": {
                kind: {"predicted": _removed(said, kind, index), "true": _removed(true, kind, index)}
                for kind in ARTIFACTS
            },
            "planted": {
                "frames": len(others),
                **{moment: _mean([getattr(planting, moment)[index] for planting in others]) for moment in MOMENTS},
            },
        }
    return {
        "images": len(result.looks),
        "right": sum(look.right for look in result.looks),
        "box_planted": "drawn" if result.drawn else "real",
        "classes": by_class,
        "rules": RULES,
        "shortcuts": shortcuts(by_class),
    }


def shortcuts(by_class: Mapping[str, Any]) -> list[str]:
    """A sentence for every class and artifact that :data:`RULES` name, the strongest first.

    Args:
        by_class: the ``classes`` of :func:`summary`.
    """
    found: list[tuple[float, str]] = []
    for name, row in by_class.items():
        for kind in ARTIFACTS:
            seen = row["evidence"][kind]
            planted = row["planted"] if kind == BOX else {"frames": 0}
            held = seen["frames"] >= FRAMES and seen["share"] >= max(SHARE, EXCESS * seen["area"])
            move = planted["box"] - max(planted["before"], planted["paint"]) if planted["frames"] >= FRAMES else 0.0
            if held or move >= MOVE:
                words = _words(kind, seen, row["removed"][kind]["predicted"], planted)
                found.append((max(seen["share"] if held else 0.0, move), f"{name}: {words}"))
    return [sentence for _, sentence in sorted(found, reverse=True)]


def _words(kind: str, seen: Mapping[str, Any], removed: Mapping[str, Any], planted: Mapping[str, Any]) -> str:
    words = []
    if seen["frames"]:
        words.append(
            f"{seen['share']:.0%} of the evidence on the {kind}, {seen['area']:.0%} of the frame; without it p goes "
            f"from {removed['before']:.2f} to {removed['after']:.2f} ({seen['frames']} frames)"
        )
    if planted["frames"]:
        words.append(
            f"planting a {kind} moves p from {planted['before']:.2f} to {planted['box']:.2f}, paint in its place to "
            f"{planted['paint']:.2f} ({planted['frames']} frames of other classes)"
        )
    return "; ".join(words)


def _evidence(looks: Sequence[Look], place: str) -> dict[str, Any]:
    there = [look for look in looks if place in look.shares]
    return {
        "frames": len(there),
        "share": _mean([look.shares[place] for look in there]),
        "area": _mean([look.areas[place] for look in there]),
        "right": _mean([look.shares[place] for look in there if look.right]),
        "wrong": _mean([look.shares[place] for look in there if not look.right]),
    }


def _removed(looks: Sequence[Look], kind: str, index: int) -> dict[str, Any]:
    carriers = [look for look in looks if kind in look.removed]
    return {
        "frames": len(carriers),
        "before": _mean([look.before[index] for look in carriers]),
        "after": _mean([look.removed[kind][index] for look in carriers]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
