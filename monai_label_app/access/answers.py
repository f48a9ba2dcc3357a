"""What an issuer answers by HTTP: never waited for too long, never read when it is too long, and JSON that fits."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

import httpx

from monai_label_app.access.identity import RETRY_SECONDS, UnreachableError

LARGEST_BYTES = 1 << 20
"""Of an answer; a description or a set of keys has some thousands."""

FAILURES = (
    httpx.HTTPError,
    httpx.InvalidURL,
    asyncio.TimeoutError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    OverflowError,
)
"""What comes of a network, and of JSON that may be anything at all."""

_Fit = TypeVar("_Fit")

_log = logging.getLogger(__name__)


def client_options(seconds: float) -> dict[str, Any]:
    """Of httpx's asynchronous client: its answers are no longer than ``LARGEST_BYTES``."""
    # What is packed may become a thousand times as long.
    plain = {"Accept-Encoding": "identity"}
    return {"timeout": seconds, "headers": plain, "event_hooks": {"response": [_shorten]}}


async def _shorten(response: httpx.Response) -> None:
    if "content-encoding" in response.headers:
        raise httpx.DecodingError("it is packed, which was not asked for", request=response.request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    response.stream = _Short(response.stream)


class _Short(httpx.AsyncByteStream):
    """A stream that fails where it would be too long."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = LARGEST_BYTES
        async for part in self._stream:
            left -= len(part)
            if left < 0:
                raise httpx.ReadError(f"it is longer than {LARGEST_BYTES} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def ask(address: str, seconds: float, form: Mapping[str, str] | None = None) -> httpx.Response:
    """What is at an address, or what it says to a form.

    Raises:
        one of ``FAILURES``: it did not answer in time, or too much.
    """
    async with httpx.AsyncClient(**client_options(seconds)) as client:
        asked = client.post(address, data=form) if form else client.get(address)
        return await asyncio.wait_for(asked, seconds)


class Kept(Generic[_Fit]):
    """What an issuer says at an address: asked for once for all who wait for it, and not at once again if that failed.

    Args:
        seconds: after which it is taken for silent.
        read: makes of the JSON what is kept; raises one of ``FAILURES`` if it does not fit.
    """

    def __init__(self, seconds: float, read: Callable[[Any], _Fit]) -> None:
        self._seconds, self._read = seconds, read
        self._found: _Fit | None = None
        self._since = self._failed = -math.inf
        self._asking: asyncio.Task[bool] | None = None

    async def at(self, address: str, oldest: float = math.inf) -> _Fit:
        """It, asked for anew where it is older than so many seconds; UnreachableError if there is none."""
        if self._found is None or time.monotonic() - self._since > oldest:
            if time.monotonic() - self._failed < RETRY_SECONDS:
                raise UnreachableError
            self._asking = self._asking or asyncio.create_task(self._ask(address))
            # Who goes away does not take it from the others.
            if not await asyncio.shield(self._asking):
                raise UnreachableError
        assert self._found is not None
        return self._found

    async def _ask(self, address: str) -> bool:
        try:
            answer = await ask(address, self._seconds)
            self._found = self._read(answer.raise_for_status().json())
        except FAILURES as error:
            self._failed = time.monotonic()
            _log.warning("the issuer of log-ins, %s: %s", address, f"{error}" or type(error).__name__)
            return False
        finally:
            self._asking = None
        self._since = time.monotonic()
        return True
