"""Files and folders of results appear whole or not at all."""

import pytest

from monai_label_app.folder import whole


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
