"""Who is let in: this machine alone, until something asks who comes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from monai_label_app.cli import main
from monai_label_app.sample import STUDY


@pytest.mark.parametrize("command", [["serve", "--studies", str(STUDY)], ["watch", str(min(STUDY.iterdir()))]])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_that_others_reach_is_refused_in_a_sentence(command: list[str], host: str) -> None:
    result = CliRunner().invoke(main, [*command, "--host", host, "--port", "1"])
    assert result.exit_code == 1
    assert "nothing would ask them who they are" in result.output
    assert "--insecure" in result.output
