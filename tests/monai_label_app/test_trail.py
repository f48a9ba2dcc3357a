"""The audit trail: what is written stays, in one chain, whoever writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from monai_label_app.access.guard import Guard
from monai_label_app.access.identity import Authentication, Identity
from monai_label_app.access.roles import CHANGED, EXPORTED, SAW, Role, Roles
from monai_label_app.access.trail import TRAIL, Trail
from monai_label_app.cli import main
from monai_label_app.journal import append_chained, broken, read

JANE = Identity("jdoe", "Doe^Jane", Role.SIGNING)

WRITER = """
import sys; from pathlib import Path
from monai_label_app.journal import append_chained
for n in range(40): append_chained(Path(sys.argv[1]), [{"by": sys.argv[2], "n": n}])
"""


def run(studies: Path, *command: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["accesses", *command, "--studies", str(studies)])
    return result.exit_code, result.output


def test_what_is_told_can_be_listed_and_names_no_patient(tmp_path: Path) -> None:
    trail = Trail(tmp_path / TRAIL)
    for _ in range(3):
        trail.tell(JANE, SAW, "/endolens/studies/1.2.3.4?PatientName=Roe", 200)
    trail.tell(JANE, CHANGED, "/datastore/label?image=1.2.3.5&tag=final", 200, "r1")
    trail.tell(JANE, CHANGED, "/datastore/label?image=1.2.3.5&tag=final", 200, "r2")
    code, listed = run(tmp_path, "list")
    assert code == 0 and [line.split()[2:5] for line in listed.splitlines()] == [
        ["saw", "200", "1.2.3.4"], ["changed", "200", "1.2.3.5"], ["changed", "200", "1.2.3.5"]
    ]  # fmt: skip
    assert "Roe" not in (tmp_path / TRAIL).read_text()
    _, exported = run(tmp_path, "export", "--uid", "1.2.3.5")
    assert [json.loads(line)["request"] for line in exported.splitlines()] == ["r1", "r2"]
    assert run(tmp_path, "list", "--user", "other") == (0, "")


HARM: list[tuple[str, Callable[[list[str]], list[str]]]] = [
    ("line 3", lambda lines: [*lines[:2], lines[2].replace('"n": 2', '"n": 9'), *lines[3:]]),
    ("line 3", lambda lines: [*lines[:2], *lines[3:]]),
    ("line 2, 3, 4", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]),
    ("line 3", lambda lines: [*lines[:2], "junk", *lines[2:]]),
    ("line 3", lambda lines: [*lines[:2], "[1, 2]", *lines[2:]]),
    ("line 3", lambda lines: [*lines[:2], "", *lines[2:]]),
    ("line 3", lambda lines: [*lines[:2], '{"at": "2026', *lines[2:]]),
    ("line 6", lambda lines: [*lines, '{"at": "2026']),
    ("line 3", lambda lines: [*lines[:2], '{"n": 9, ' + lines[2][1:], *lines[3:]]),
    ("line 3, 4", lambda lines: [*lines[:2], json.dumps({**json.loads(lines[2]), "hash": 5}), *lines[3:]]),
    ("line 1, 2", lambda lines: ["junk", "[" * 100_000]),
    ("line 1", lambda lines: []),
]
"""Which lines are named, and what was done to those of a trail of five."""


@pytest.mark.parametrize(("named", "harm"), HARM)
def test_harm_to_the_trail_is_seen(tmp_path: Path, named: str, harm: Callable[[list[str]], list[str]]) -> None:
    path = tmp_path / TRAIL
    append_chained(path, [{"n": n} for n in range(5)])
    assert run(tmp_path, "verify")[0] == 0
    path.write_text("".join(f"{line}\n" for line in harm(path.read_text().splitlines())))
    code, said = run(tmp_path, "verify")
    assert code == 1 and re.search(rf"was changed: .*{named}( is|,)", said), said


@pytest.mark.parametrize("junk", [bytes(range(256)), bytes(range(11, 256))])
def test_junk_in_the_place_of_the_trail_is_seen_though_it_is_written_on(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / TRAIL).parent.mkdir()
    (tmp_path / TRAIL).write_bytes(junk)
    Trail(tmp_path / TRAIL).tell(JANE, SAW, "/1.2.3.4", 200)
    code, said = run(tmp_path, "verify")
    assert code == 1 and "line 1" in said


def test_who_names_themselves_in_lines_gets_one_word(tmp_path: Path) -> None:
    name = "x  saw  200\n2026-11-26T22:29:10+00:00  boss  signed  200  1.2.3\x1b[2K\u202ez"
    Trail(tmp_path / TRAIL).tell(Identity(name, "", Role.READING), SAW, "/1.2.3.4", 200)
    _, listed = run(tmp_path, "list")
    assert listed.count("\n") == 1 and listed.removesuffix("\n").isprintable()
    assert repr(name) in listed


def test_a_trail_with_lines_of_another_hand_is_listed_all_the_same_and_found_out(tmp_path: Path) -> None:
    append_chained(tmp_path / TRAIL, [{"user": "jane", "action": "saw", "status": 200, "objects": ["1.2.3"]}])
    with (tmp_path / TRAIL).open("ab") as file:
        file.write(b'\xff\xfe no text\n{"a": 1, "objects": 2}\n' + b"[" * 100_000 + b"\n")
    code, listed = run(tmp_path, "list")
    assert code == 0 and "1.2.3" in listed
    assert run(tmp_path, "export")[0] == 0
    code, said = run(tmp_path, "verify")
    assert code == 1 and "line 2, 3, 4 is not as it was written" in said


def test_an_export_is_told_of_however_it_is_asked_for_and_whatever_was_seen_before(tmp_path: Path) -> None:
    guarded = Guard(PlainTextResponse("data"), Authentication(), Roles(), False, trail=Trail(tmp_path / TRAIL))
    client, uid = TestClient(guarded, base_url="http://127.0.0.1"), "2.25.1234567890"
    invented = "&".join(f"a=1.2.{n}.3" for n in range(150))
    for address in (
        f"/datastore/image?image=%32%2E25%2E{uid[5:]}",
        f"/datastore/image?{invented}&image={uid}",
        f"/endolens/dicomweb/studies/{uid}/metadata",
        f"/endolens/dicomweb/studies/{uid}",
        f"/endolens/dicomweb/studies/{uid}/series/{uid}.1/instances/{uid}.2",
        f"/endolens/dicomweb/studies/{uid}/series/{uid}.1/instances/{uid}.2/frames/1",
        "/datastore/dataset",
    ):
        assert client.get(address).text == "data"
    told = [(one["action"], uid in one["objects"]) for one in read(tmp_path / TRAIL)]
    exported, saw = (EXPORTED, True), (SAW, True)
    assert told == [exported, exported, saw, exported, exported, saw, (EXPORTED, False)]


def test_several_servers_write_one_chain_and_a_line_cut_off_breaks_none(tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    append_chained(path, [{"n": "first"}])
    with path.open("a") as file:
        file.write('{"at": "2026-11-2')
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(3)]
    assert [one.wait(60) for one in writers] == [0, 0, 0]
    assert broken(path) == []
    told = [(one["by"], one["n"]) for one in read(path) if "by" in one]
    assert sorted(told) == sorted((str(writer), n) for writer in range(3) for n in range(40))


def test_what_many_do_at_once_is_told_of_each_once(tmp_path: Path) -> None:
    trail, odd = Trail(tmp_path / TRAIL), Identity("\ud800 ж", "", Role.READING)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: trail.tell(odd, CHANGED, f"/1.2.3.{n}", 200), range(200)))
    assert sorted(one["objects"][0] for one in read(tmp_path / TRAIL)) == sorted(f"1.2.3.{n}" for n in range(200))
    assert broken(tmp_path / TRAIL) == []


def test_a_trail_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    (tmp_path / ".endolens").write_text("in the way")
    trail = Trail(tmp_path / TRAIL)
    trail.tell(JANE, CHANGED, "/1.2.3.1", 200)
    assert not trail.kept
    (tmp_path / ".endolens").unlink()
    trail.tell(JANE, CHANGED, "/1.2.3.2", 200)
    assert trail.kept
    assert [one["objects"] for one in read(tmp_path / TRAIL)] == [["1.2.3.1"], ["1.2.3.2"]]


def test_a_folder_without_a_trail_is_named(tmp_path: Path) -> None:
    code, said = run(tmp_path, "verify")
    assert code == 1 and "there is no audit trail" in said
