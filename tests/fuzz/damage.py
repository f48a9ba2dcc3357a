"""Malformed inputs, each made of a whole one by a seed, and what must be true of the answer to any."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import settings
from pydicom import dcmread
from pydicom.dataelem import RawDataElement

SECONDS = 10
"""How long an answer may take."""

MEGABYTES = 2048
"""How much memory a process may ever have held, torch and a model included; the inputs have some megabytes."""

KEPT = Path(__file__).parents[2] / ".cache" / "fuzz"
"""Where an input is kept that finds a fault."""

_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_TEXTS = (
    b"-1",
    b"0",
    b"99999999",
    b"1e308",
    b"nan",
    b"inf",
    b"../../etc",
    b"\\",
    b"\xff\xfe\xfd",
    b"\0",
    b"\x1b$B",
    b"=",
)
_LONG_FORM = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])
_VALUES = (
    None, True, -1, 0, 10**30, -(10**400), 1e308, float("nan"), float("inf"), "", "\0", "\ud800", "x" * 100_000,
    "1" * 5000, "../../etc/passwd", "<script>", "2026-13-45", [], {}, [None], [[[[[]]]]], {"": {}}, {"\ud800": 1},
)  # fmt: skip


def examples(count: int) -> int:
    """So many inputs, and as many more in a long run as Hypothesis's profile has more examples than usual."""
    return count * settings().max_examples // 100


class Door:
    """Malformed inputs for one way in, one after the other, and the faults that they find.

    Args:
        name: of the way in.
        seed: of the inputs.
        count: of them in a short run.
    """

    def __init__(self, name: str, seed: int, count: int) -> None:
        self._name, self._seed, self._count = name, seed, examples(count)
        self._number, self._faults = 0, list[str]()

    def __iter__(self) -> Iterator[Random]:
        for number in range(self._count):
            self._number = number
            yield Random(f"{self._name} {self._seed} {self._number}")

    def fault(self, what: str, content: bytes) -> None:
        """Keep an input that finds a fault."""
        KEPT.mkdir(parents=True, exist_ok=True)
        place = KEPT / f"{self._name}-{self._seed}-{self._number}"
        place.write_bytes(content)
        self._faults.append(f"{place} (seed {self._seed}, number {self._number}): {what}")

    def require_no_fault(self) -> None:
        """Fail with all that was found."""
        assert not self._faults, f"{len(self._faults)} of {self._count}:\n" + "\n".join(self._faults[:50])


def is_sentence(text: object) -> bool:
    """Whether a refusal is for people: one line that says something, and nothing of a program's inside."""
    inside = r"Traceback|\bobject at 0x|<class |\w+Error\b|site-packages"
    return isinstance(text, str) and 3 < len(text) < 2000 and "\n" not in text and not re.search(inside, text)


def damaged(random: Random, content: bytes) -> bytes:
    """The bytes with a few of them changed, taken away, doubled, or cut off; at the front more often than behind."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        place = int(random.random() ** 2 * len(changed))
        length = random.choice((1, 2, 4, 16, 300))
        match random.randrange(7):
            case 0:
                changed[place : place + 1] = bytes([random.randrange(256)])
            case 1:
                order = random.choice("<>")
                number = struct.pack(f"{order}I", random.choice(_NUMBERS))
                changed[place : place + 4] = number
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                changed[place:place] = random.randbytes(length)
            case 5:
                changed[place : place + length] = random.randbytes(length)
            case _:
                del changed[random.randrange(len(changed) + 1) if random.random() < 0.3 else len(changed) :]
    return bytes(changed)


def damaged_dicom(random: Random, content: bytes) -> bytes:
    """A DICOM file in explicit VR little endian with a few elements damaged: value, length, VR, or gone, or doubled."""
    for _ in range(random.choice((1, 1, 2, 3))):
        elements = _elements(content)
        if not elements:
            break
        start, value, end = random.choice(elements)
        head, tail = content[:start], content[end:]
        name, data = content[start:value], content[value:end]
        match random.randrange(6):
            case 0:
                name, data = b"", b""
            case 1:
                data = (random.choice(_TEXTS) + b" " * len(data))[: max(2, len(data))]
            case 2:
                data = struct.pack("<I", random.choice(_NUMBERS)) * (len(data) // 4 + 1)
                data = data[: end - value]
            case 3:
                name = name[:-2] + struct.pack("<H", random.choice(_NUMBERS) & 0xFFFF)
            case 4:
                name = name[:4] + random.choice((b"UN", b"SQ", b"DS", b"IS", b"US", b"UI", b"??")) + name[6:]
            case _:
                data = data + name + data
        content = head + name + data + tail
    return content


def _elements(content: bytes) -> list[tuple[int, int, int]]:
    """(start, start of the value, end) of the elements that can still be found."""
    try:
        found = [one for one in dcmread(io.BytesIO(content)).values() if isinstance(one, RawDataElement)]
    except Exception:  # it is malformed already
        return []
    return [
        (
            one.value_tell - (12 if (one.VR or "").encode() in _LONG_FORM else 8),
            one.value_tell,
            one.value_tell + one.length,
        )
        for one in found
        if one.length != 0xFFFFFFFF
    ]


def damaged_json(random: Random, value: Any) -> bytes:
    """JSON with a value that is wrong, missing or too much; or no JSON at all."""
    text = json.dumps(_changed(random, value))
    match random.randrange(8):
        case 0:
            return damaged(random, text.encode() or b"{}")
        case 1:
            return b"[" * 100_000
        case 2:
            return b'{"a":' * 20_000 + b"1" + b"}" * 20_000
        case _:
            return text.encode()


def _changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(list(value))
        match random.randrange(6):
            case 0:
                return {key: one for key, one in value.items() if key != name}
            case 1:
                return {**value, random.choice(("", "\0", "\ud800", "unknown", "$ref")): random.choice(_VALUES)}
            case _:
                return {**value, name: _changed(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.7:
        return [*value[1:], _changed(random, value[0])] * random.choice((1, 1, 1, 5000))
    return random.choice(_VALUES)
