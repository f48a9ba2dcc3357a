"""Let MONAI Label 0.8.5 run beside pydicom 3. Import this before anything of monailabel.

monailabel imports pydicom-seg, which imports a module of pydicom 2 that pydicom 3 no longer has. A module of that
name with the same UIDs fills the gap.

It also lets every web site read its answers unless it is given a list of those that may: here none but itself.
"""

import sys
import types

import pydicom.uid

_NAME = "pydicom._storage_sopclass_uids"

if _NAME not in sys.modules:
    _module = types.ModuleType(_NAME)
    _module.__dict__.update({name: uid for name, uid in vars(pydicom.uid).items() if name.endswith("Storage")})
    sys.modules[_NAME] = _module

from monailabel.config import settings  # noqa: E402

if not settings.MONAI_LABEL_CORS_ORIGINS:
    settings.MONAI_LABEL_CORS_ORIGINS = [f"http://127.0.0.1:{settings.MONAI_LABEL_SERVER_PORT}"]
