"""Files and folders of results appear whole or not at all."""

import subprocess
import sys

import pytest

from monai_label_app.folder import staging, whole


def test_a_file_appears_whole_and_a_failure_leaves_the_one_before(tmp_path):
    path = tmp_path / "plot.png"
    with whole(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(OSError, match="disk full"), whole(path) as partial:
        partial.write_text("sec")
        raise OSError("disk full")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_goes_and_what_another_works_on_stays(tmp_path):
    work = (
        "from monai_label_app.folder import staging; import os, pathlib, sys\n"
        "with staging(pathlib.Path(sys.argv[1])) as staged:\n"
        "    (staged / 'still.dcm').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", work, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "still.dcm").exists()
    with staging(tmp_path) as first:
        with staging(tmp_path) as second:
            assert set(tmp_path.iterdir()) == {first, second}
        assert first.exists()
    assert list(tmp_path.iterdir()) == []
