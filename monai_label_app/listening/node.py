"""Objects come in by C-STORE (PS3.4 annex B), and who asks by C-ECHO whether the node is there is answered."""

from __future__ import annotations

import logging
import textwrap
import threading
from collections.abc import Callable, Sequence

from pydicom import Dataset
from pydicom.uid import AllTransferSyntaxes, DeflatedExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, _config, dimse_messages, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.fsm import InvalidEventError
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from monai_label_app.frames import UnreadableError, in_one_line
from monai_label_app.listening.receiving import Arriving, NoRoomError, Receiver
from monai_label_app.listening.security import Security, shake_hands
from monai_label_app.observed.logs import study_uid

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND, PROCESSING_FAILURE = 0x0000, 0xA700, 0xC000, 0x0110
"""Status of a C-STORE (PS3.4 table B.2-1, PS3.7 annex C)."""

ASSOCIATIONS = 10
"""Who may send at once."""

MAXIMUM_PDU = 128 * 1024
"""Bytes of a message, at most."""

TIMEOUT = 60
"""Seconds without a word after which an association is ended."""

OPENING = 5
"""Seconds within which who connects says what they want; until then they take the place of a sender."""

_COMMENT = 64
"""Characters of an Error Comment (0000,0902)."""

# A small deflated object can become one of any size.
_SYNTAXES = [one for one in AllTransferSyntaxes if one != DeflatedExplicitVRLittleEndian]

_log = logging.getLogger(__name__)


def listen(
    receiver: Receiver,
    title: str,
    host: str,
    port: int,
    peers: Sequence[str],
    security: Security,
    say: Callable[[str], None],
) -> Callable[[], None]:
    """Start to listen; what it returns ends it.

    Args:
        receiver: gets the objects.
        title: AE title by which the node must be called.
        host, port: to listen on.
        peers: AE titles of those that may call; anyone, if there is none.
        security: whether by TLS.
        say: gets a sentence for every object that is refused.

    Raises:
        ValueError: a title is none, the port is taken, the host is not this machine's, or the files of TLS cannot be
            used.
    """
    entity = AE(title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(peers)
    entity.maximum_associations = ASSOCIATIONS
    entity.maximum_pdu_size = MAXIMUM_PDU
    entity.acse_timeout = OPENING
    entity.dimse_timeout = entity.network_timeout = TIMEOUT
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), _SYNTAXES)

    def store(event: Event) -> Dataset | int:
        return _stored(event, receiver, say)

    threading.excepthook = _told
    # Objects go to the disk as they come, not into memory; and to our own, not to the system's temporary folder.
    _config.STORE_RECV_CHUNKED_DATASET = True
    dimse_messages.NamedTemporaryFile = lambda **_: receiver.arriving()  # type: ignore[assignment]
    tls = security.listening()
    handlers: list[EventHandlerType] = [(evt.EVT_C_STORE, store), (evt.EVT_CONN_CLOSE, _leave)]
    if tls:
        handlers.append((evt.EVT_CONN_OPEN, shake_hands))
    try:
        entity.start_server((host, port), block=False, ssl_context=tls, evt_handlers=handlers)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return entity.shutdown


def _told(failure: threading.ExceptHookArgs) -> None:
    """Say nothing of messages in an order that the standard does not know, which end the thread that reads them."""
    if not isinstance(failure.exc_value, InvalidEventError):
        threading.__excepthook__(failure)


def _leave(event: Event) -> None:
    """Let go of who hangs up without having asked for an association, whose place is waited with otherwise; and of an
    object that they did not send to its end.
    """
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)
    message = event.assoc.dimse.message
    if message is not None and isinstance(message._data_set_file, Arriving):
        message._data_set_file.remove()


def _stored(event: Event, receiver: Receiver, say: Callable[[str], None]) -> Dataset | int:
    """Take the object of a C-STORE request; the status that answers it."""
    assert isinstance(event.request, C_STORE)
    name = str(event.request.AffectedSOPInstanceUID)
    study_uid.set("")
    try:
        arrived = event.request._dataset_file
        assert isinstance(arrived, Arriving)
        try:
            receiver.take(arrived, name)
        finally:
            study_uid.set(arrived.study)
    except UnreadableError as error:
        return _refused(CANNOT_UNDERSTAND, str(error), say)
    except NoRoomError as error:
        return _refused(OUT_OF_RESOURCES, f"{name} is refused: {error}", say)
    except Exception as error:
        _log.exception("an object could not be received")
        return _refused(PROCESSING_FAILURE, f"{name} cannot be received: {in_one_line(error)}", say)
    return SUCCESS


def _refused(status: int, reason: str, say: Callable[[str], None]) -> Dataset:
    say(reason)
    answer = Dataset()
    answer.Status = status
    # The sender knows which object it was.
    answer.ErrorComment = textwrap.shorten(reason.partition(" ")[2], _COMMENT, placeholder="...")
    return answer
