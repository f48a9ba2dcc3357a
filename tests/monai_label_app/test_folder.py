"""Files and folders of results appear whole or not at all."""

import os
import subprocess
import sys
import tempfile

import pytest

from monai_label_app.folder import staging, temporary, whole


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


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder to another user")
def test_a_temporary_folder_is_its_user_s_alone_and_another_user_s_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary() as folder:
        assert folder.parent.parent == tmp_path
        assert folder.parent.stat().st_mode & 0o777 == folder.stat().st_mode & 0o777 == 0o700
    (root,) = tmp_path.iterdir()
    assert list(root.iterdir()) == []
    os.lchown(root, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"), temporary():
        pass


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
