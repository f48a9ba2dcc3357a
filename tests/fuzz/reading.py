"""`endolens analyze` of one file after the other, as told: python -m tests.fuzz.reading MODEL

Each line of the input names a file. Each line of the output is JSON: how that ended.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

from click.testing import CliRunner

from monai_label_app import analysis  # noqa: F401  (it takes seconds to import, which no input is to blame for)
from monai_label_app.cli import main


def analyze(file: str, model: str) -> dict[str, object]:
    """What the command says of a file, how it ends, and what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        result = CliRunner().invoke(main, ["analyze", file, "--out", str(out), "--model", model])
        fault = "" if result.exception is None or isinstance(result.exception, SystemExit) else result.exc_info
        return {
            "code": result.exit_code,
            "said": result.stderr,
            "fault": fault and "".join(traceback.format_exception(*fault)),
            "left": [str(one) for one in Path(folder).rglob("*")],
            "megabytes": int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) // 1024,
        }


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # decoders print what they like
    print(json.dumps({}), file=answers)
    for line in sys.stdin:
        print(json.dumps(analyze(line.rstrip("\n"), sys.argv[1])), file=answers)
