"""`endolens …`, which first writes every route of its server into a file: python -m tests.e2e.walked FILE serve …"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_label_app import server
from monai_label_app.cli import main


def walk(app: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path pattern) of an ASGI app, of all that is mounted in it, and of what wraps them."""
    if hasattr(app, "url_map"):  # Flask
        for rule in app.url_map.iter_rules():
            yield from ((method, prefix + rule.rule) for method in rule.methods)
        return
    if not hasattr(app, "routes"):
        inner = next((getattr(app, name) for name in ("_api", "_app", "app") if hasattr(app, name)), None)
        if callable(inner) and not hasattr(app, "directory"):
            yield from walk(inner, prefix)
        else:
            yield "GET", f"{prefix}/{{path}}"  # files
        return
    for route in app.routes:
        if hasattr(route, "original_router"):
            yield from walk(route.original_router, prefix)
        elif getattr(route, "methods", None):
            yield from ((method, prefix + route.path) for method in route.methods)
        else:
            yield from walk(route.app, prefix + route.path)


if __name__ == "__main__":
    file, *arguments = sys.argv[1:]
    serve = server._run

    def run(app: Any, *more: Any) -> None:
        Path(file).write_text(json.dumps(sorted(set(walk(app)))))
        serve(app, *more)

    server._run = run
    main(arguments)
