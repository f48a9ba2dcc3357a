"""Let MONAI Label 0.8.5 run beside pydicom 3. Import this before anything of monailabel.

monailabel imports pydicom-seg, which imports a module of pydicom 2 that pydicom 3 no longer has. A module of that
name with the same UIDs fills the gap.

It also lets every web site read its answers unless it is given a list of those that may: here none but itself.
"""

import sys
import types

import pydicom.uid
from pydantic import ValidationError

_NAME = "pydicom._storage_sopclass_uids"

if _NAME not in sys.modules:
    _module = types.ModuleType(_NAME)
    _module.__dict__.update({name: uid for name, uid in vars(pydicom.uid).items() if name.endswith("Storage")})
    sys.modules[_NAME] = _module

try:
    from monailabel.config import settings
except ValidationError as error:
    _wrong = error.errors()[0]
    raise ValueError(f"{_wrong['loc'][0]} is {_wrong['input']!r}: {_wrong['msg']}") from None

if not settings.MONAI_LABEL_CORS_ORIGINS:
    settings.MONAI_LABEL_CORS_ORIGINS = [f"http://127.0.0.1:{settings.MONAI_LABEL_SERVER_PORT}"]
