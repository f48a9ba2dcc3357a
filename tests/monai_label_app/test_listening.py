"""What a node keeps and gives up, and how `endolens listen` says no; tests/e2e sends to a real one."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pynetdicom import AE, AllStoragePresentationContexts, evt

from monai_label_app.cli import main
from monai_label_app.frames import UnreadableError
from monai_label_app.listening.destinations import open_destination
from monai_label_app.listening.receiving import NoRoomError, Receiver
from monai_label_app.listening.security import Security
from monai_label_app.listening.store import ANALYSIS, DEAD, DONE, WAITING, Job, Store
from monai_label_app.listening.work import Analysis, Patience, Sending, Worker
from tests.dicom_files import image
from tests.e2e.conftest import ENDOLENS, free_port
from tests.e2e.listening import send
from tests.postgresql import postgresql
from tests.receiving import received, take

TO = "PACS@localhost:104"


def endolens(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def analysed(store: Store, *uids: str) -> bool:
    job = store.begin(ANALYSIS, 60)
    for uid in uids:
        place = store.results / job.study / f"{uid}.dcm"
        place.parent.mkdir(exist_ok=True)
        place.touch()
    return store.analysed(job, uids, "", [TO])


def states(store: Store) -> dict[str, str]:
    return {one.task: one.state for one in store.jobs()}


def test_a_study_that_grows_while_it_is_analysed_is_analysed_again_and_nothing_is_sent_before(store: Store) -> None:
    first = received(store)
    begun = store.begin(ANALYSIS, 60)
    received(store, StudyInstanceUID=first.StudyInstanceUID)
    assert not store.analysed(begun, ["1.1", "1.2"], "", [TO])
    assert states(store) == {ANALYSIS: WAITING}
    assert analysed(store, "1.1", "1.2")
    received(store, StudyInstanceUID=first.StudyInstanceUID)
    assert store.begin(TO, 60) is None
    assert analysed(store, "1.1", "1.3")
    job = store.begin(TO, 60)
    assert [file.stem for file in store.unsent(job)] == ["1.1", "1.3"], "a result that was replaced is not sent"
    for file in store.unsent(job):
        store.sent(job, file.stem)
    store.delivered(job)
    assert states(store) == {ANALYSIS: DONE, TO: DONE}
    assert not (store.results / first.StudyInstanceUID).exists()
    received(store, StudyInstanceUID=first.StudyInstanceUID)
    assert analysed(store, "1.1", "1.4")
    assert [file.stem for file in store.unsent(store.begin(TO, 60))] == ["1.4"], "what is there is not sent again"


def test_an_attempt_counts_from_its_beginning_and_waits_grow(store: Store) -> None:
    received(store)
    waits = []
    for attempts in range(4):
        assert store.begin(ANALYSIS, 5).attempts == attempts  # and then the process is killed
        (job,) = store.jobs()
        waits.append(round(job.due - time.time()))
        assert store.begin(ANALYSIS, 5) is None, "it is not due again at once"
        store.put_back(replace(job, due=0))
    assert waits == [1, 2, 4, 5]
    last = store.begin(ANALYSIS, 5)
    assert not store.fail(last, "no", 6)
    assert store.fail(last, "no", 5)
    assert [(one.state, one.reason) for one in store.jobs()] == [(DEAD, "no")]
    assert (store.retry(), store.retry()) == (1, 0)
    assert store.begin(ANALYSIS, 5).attempts == 0


def test_what_the_database_does_not_speak_of_is_tidied_away_and_what_is_old_forgotten(store: Store) -> None:
    kept = received(store)
    stray = store.place(kept.StudyInstanceUID, "1.2.3")
    stray.touch()
    (store.received / ".half.partial").touch()
    (store.results / ".analysis-x").mkdir()
    (store.results / "1.9").mkdir()
    (store.results / "1.9" / "1.2.dcm").touch()
    store.tidy()
    place = store.place(kept.StudyInstanceUID, kept.SOPInstanceUID)
    assert [file for file in store.received.rglob("*") if file.is_file()] == [place]
    assert list(store.results.iterdir()) == []
    store.forget(0)
    assert place.exists(), "it is not done"
    assert analysed(store)
    store.delivered(store.begin(TO, 60))
    store.forget(1)
    assert place.exists(), "it is not old"
    store.forget(0)
    assert not place.exists() and store.jobs() == []
    received(store, StudyInstanceUID=kept.StudyInstanceUID)
    assert states(store) == {ANALYSIS: WAITING}


def test_an_object_is_kept_once_and_never_put_into_another_patient_s_study(store: Store) -> None:
    receiver = Receiver(store, 60, 0)
    first = received(store)
    assert take(receiver, first) == "present"
    same = {"SOPInstanceUID": first.SOPInstanceUID, "StudyInstanceUID": first.StudyInstanceUID}
    for changes in ({"PatientID": "another"}, {"StudyInstanceUID": "1.2.3.4"}):
        other = image(np.zeros((64, 64, 3), np.uint8), **{**same, **changes})
        with pytest.raises(
            UnreadableError, match="it has the UID of an image of another.* study " + other.StudyInstanceUID
        ):
            take(receiver, other)
    del same["SOPInstanceUID"]
    with pytest.raises(UnreadableError, match="another patient than the rest of its study, " + first.StudyInstanceUID):
        take(receiver, image(np.zeros((64, 64, 3), np.uint8), **same, PatientID="another"))
    own = image(np.zeros((64, 64, 3), np.uint8), Manufacturer="EndoLens")
    assert take(receiver, own) == "own"
    with pytest.raises(NoRoomError, match="full"):
        take(Receiver(store, 60, 2**60), image(np.zeros((64, 64, 3), np.uint8)))
    assert [file.stem for file in store.received.rglob("*.dcm")] == [first.SOPInstanceUID]


@contextmanager
def pacs(port: int, status: int, kept: list[str]) -> Iterator[None]:
    """An application entity that answers every C-STORE by a status."""
    entity = AE("PACS")
    entity.supported_contexts = AllStoragePresentationContexts

    def store(received: evt.Event) -> int:
        kept.append(received.dataset.SOPInstanceUID)
        return status

    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield
    server.shutdown()


@pytest.mark.slow
def test_what_cannot_be_sent_is_given_up_with_a_reason_and_tried_again_when_a_person_says_so(
    store: Store, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    to, state, stop, kept = f"PACS@127.0.0.1:{port}", ["--state", tmp_path / "state"], threading.Event(), []
    for _ in range(2):
        result = received(store)
        place = store.results / result.StudyInstanceUID / f"{result.SOPInstanceUID}.dcm"
        place.parent.mkdir()
        result.save_as(place, enforce_file_format=True)
        assert store.analysed(store.begin(ANALYSIS, 60), [result.SOPInstanceUID], "", [to])
    sending = Sending(store, open_destination(to, "ENDOLENS", Security()), stop)
    worker = Worker(to, sending, store, Patience(attempts=2, longest=0), print)

    def work(state: str) -> None:
        thread = threading.Thread(target=worker.run, args=[stop])
        thread.start()
        while any(one.state == WAITING for one in store.jobs()):
            time.sleep(0.05)
        stop.set()
        thread.join()
        stop.clear()
        assert {one.state for one in store.jobs() if one.task == to} == {state}

    work(DEAD)
    first, second = json.loads(endolens("jobs", "list", "--dead", "--json", *state).stdout)
    assert (first["task"], first["objects"], first["reason"]) == (to, 1, f"{to} does not answer")
    assert endolens("jobs", "retry", first["study"], *state).stdout == "1 jobs are tried again\n"
    with pacs(port, 0xA700, kept):
        work(DEAD)
    assert "(status A700H)" in endolens("jobs", "list", *state).stdout
    assert endolens("jobs", "drop", second["study"], *state).exit_code == 0
    assert endolens("jobs", "drop", second["study"], *state).exit_code == 1
    assert endolens("jobs", "retry", "--all", *state).stdout == "1 jobs are tried again\n"
    kept.clear()
    with pacs(port, 0x0000, kept):
        work(DONE)
    assert len(kept) == 1
    assert list(store.results.iterdir()) == [], "files of results go when all have them"
    assert [one.study for one in store.jobs()] == [first["study"]] * 2
    assert len(list(store.received.rglob("*.dcm"))) == 1


def test_a_node_that_logs_as_json_says_of_which_study_each_line_is(store: Store, tmp_path: Path) -> None:
    result = received(store)
    (store.results / result.StudyInstanceUID).mkdir()
    result.save_as(store.results / result.StudyInstanceUID / "1.2.dcm", enforce_file_format=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    to, port = f"PACS@127.0.0.1:{nobody}", free_port()
    assert store.analysed(store.begin(ANALYSIS, 60), ["1.2"], "", [to])
    options = ["--state", str(tmp_path / "state"), "--send", to, "--attempts", "1", "--port", str(port)]
    command = [ENDOLENS, "listen", "--log", "json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as node:
        lines = map(json.loads, node.stderr)

        def line(words: str) -> dict[str, str]:
            return next(one for one in lines if words in one["message"])

        assert "study" not in line(f"ENDOLENS listens on 127.0.0.1:{port}")
        assert line(f"{to} does not answer; given up")["study"] == result.StudyInstanceUID
        other = image(np.full((64, 64, 3), 90, np.uint8), StudyInstanceUID=result.StudyInstanceUID, PatientID="other")
        assert [one.Status for one in send(port, [other])] == [0xC000]
        assert line("names another patient")["study"] == result.StudyInstanceUID
        node.kill()  # it would wait for its model to be open
        assert node.stdout.read() == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--send", "nowhere"], "neither a DICOMweb address"),
        (["--send", "AET@host:99999"], "neither a DICOMweb address"),
        (["--send", "http://user:secret@host/"], "a login does not belong"),
        (["--database", "sqlite:////nowhere/at/all.sqlite"], "the database of jobs cannot be opened"),
        (["--database", "postgresql+psycopg://u:secret@::x/db"], "the database of jobs cannot be opened"),
        (["--port", "{taken}"], "cannot listen on 127.0.0.1:{taken}: Address already in use"),
        (["--host", "0.0.0.0"], "name those that may send by --peer"),
        (["--aet", "much too long a title"], "no AE title"),
        (["--since", "yesterday"], "no date of the form YYYYMMDD"),
        (["--state", "/dev/null/state"], "Not a directory"),
        (["--every", "inf"], "inf is not in the range"),
        (["--quiet", "nan"], "'nan' is not a valid float range"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_sentence(options: list[str], words: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = str(listener.getsockname()[1])
        given = [option.format(taken=taken) for option in options]
        result = endolens("listen", "--send", "http://127.0.0.1:9", "--state", tmp_path / "state", *given)
    assert isinstance(result.exception, SystemExit) and result.exit_code in (1, 2)
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words.format(taken=taken) in " ".join(result.stderr.split())
    assert "secret" not in sentence


def test_a_database_belongs_to_one_folder(store: Store, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'state' / 'jobs.sqlite'}"
    Store(tmp_path / "state", database)
    with pytest.raises(ValueError, match="speaks of another folder"):
        Store(tmp_path / "other", database)


def test_a_folder_belongs_to_one_database(store: Store, tmp_path: Path) -> None:
    """With another, such as the default where ``--database`` was forgotten, nothing is lost."""
    kept = store.place("1.2", "1.2.3")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"acknowledged")
    store.add("1.2", "1.2.3", "JANE", 0)
    other = f"sqlite:///{tmp_path / 'other.sqlite'}"
    for command in (("listen", "--send", "http://127.0.0.1:9"), ("jobs", "list")):
        result = endolens(*command, "--state", tmp_path / "state", "--database", other)
        assert result.exit_code == 1 and "holds what another database speaks of" in result.stderr
    assert kept.exists()
    assert [job.study for job in Store(tmp_path / "state").jobs()] == ["1.2"]


def test_jobs_of_a_damaged_database_are_one_sentence(store: Store, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as database:
        database.execute("DROP TABLE jobs")
    for command in (["list"], ["retry", "--all"], ["drop", "1.2"]):
        result = endolens("jobs", *command, "--state", tmp_path / "state")
        assert (result.exit_code, result.stderr) == (1, "Error: the database does not answer: no such table: jobs\n")


def test_jobs_of_a_folder_that_is_none_are_one_sentence(tmp_path: Path) -> None:
    for command in (["list"], ["retry", "--all"], ["drop", "1.2"]):
        result = endolens("jobs", *command, "--state", tmp_path / "nothing")
        assert result.exit_code == 1 and "is no state folder of endolens listen" in result.stderr
    assert not (tmp_path / "nothing").exists()


def test_what_comes_again_while_its_study_is_dropped_is_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, unlink, again = received(store), Path.unlink, []
    receiver = Receiver(store, 0, 0)

    def slow(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".dcm":
            again.append(pool.submit(take, receiver, one))
            wait(again, timeout=0.5)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", slow)
    with ThreadPoolExecutor(1) as pool:
        assert Store(tmp_path / "state").drop(one.StudyInstanceUID)  # as another process does
    assert [told.result() for told in again] == ["stored"]
    assert store.place(one.StudyInstanceUID, one.SOPInstanceUID).exists()


@pytest.mark.slow
def test_a_patient_whom_postgresql_cannot_hold_is_refused_and_keeps_nothing_waiting(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        with postgresql(Path(folder)) as url:
            store = Store(tmp_path / "state", url)
            receiver = Receiver(store, 0, 0)
            with pytest.raises(UnreadableError, match=r"holds what no database takes: .*NUL"):
                take(receiver, image(np.full((64, 64, 3), 90, np.uint8), PatientID="AB\0CD"))
            assert receiver.complete
            received(store)
            assert store.begin(ANALYSIS, 60)


class Interrupted(Store):
    """One where something happens when a study has just been analysed."""

    happens: Callable[[], object]

    def analysed(self, *given: Any) -> bool:
        self.happens()
        return super().analysed(*given)


def test_a_study_dropped_or_grown_while_it_is_analysed_leaves_no_results(tmp_path: Path, checkpoint: Path) -> None:
    store = Interrupted(tmp_path / "state")
    study = str(received(store).StudyInstanceUID)
    analysis = Analysis(store, [TO], str(checkpoint), None, {}, threading.Event())
    store.happens = lambda: received(store, StudyInstanceUID=study)
    assert analysis(store.begin(ANALYSIS, 60)) == f"{study} has changed while it was analysed, and is analysed again"
    assert list(store.results.iterdir()) == []
    store.happens = lambda: None
    assert f"{study} is analysed: 2 frames, 3 results" in analysis(store.begin(ANALYSIS, 60))
    earlier = {file.name for file in store.results.rglob("*.dcm")}
    store.happens = lambda: received(store, StudyInstanceUID=study)
    received(store, StudyInstanceUID=study)
    assert "has changed" in analysis(store.begin(ANALYSIS, 60))
    assert {file.name for file in store.results.rglob("*.dcm")} == earlier, "those are to be sent"
    store.happens = lambda: store.drop(study)
    assert analysis(store.begin(ANALYSIS, 60)) == f"{study} was dropped while it was analysed"
    assert list(store.results.iterdir()) == list(store.received.iterdir()) == store.jobs() == []
    received(store, StudyInstanceUID=study, PatientID="WRONG")
    store.happens = lambda: store.drop(study) and received(store, StudyInstanceUID=study, PatientID="RIGHT")
    assert "has changed" in analysis(store.begin(ANALYSIS, 60)), "another patient's results would be sent"
    assert list(store.results.iterdir()) == []


def test_what_goes_wrong_with_a_job_is_told_as_it_is(store: Store, tmp_path: Path) -> None:
    stop, said = threading.Event(), []

    def say(sentence: str) -> None:
        said.append(sentence)
        stop.set()

    def dropped(job: Job) -> str:
        store.drop(job.study)
        raise ValueError("there is no image")

    worker = Worker(ANALYSIS, dropped, store, Patience(attempts=2, longest=0), say)
    study = received(store).StudyInstanceUID
    worker.run(stop)
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as database:
        database.execute("DROP TABLE jobs")
    stop.clear()
    worker.run(stop)
    assert said == [
        f"{study}, analysis: there is no image; it was dropped or has changed",
        "analysis waits for the disk or the database: no such table: jobs",
    ]
