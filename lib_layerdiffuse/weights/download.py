"""Bytes from the hub, beginning at any offset, in order.

Why not `hf_hub_download`: from huggingface_hub 1.x on it writes to a name of its own and deletes it when the download fails, so an
interrupted download of 3.6 GB starts anew. This file asks the hub's own HTTP
session (proxies, certificates, offline mode) for plain ranges, which huggingface.co and its mirrors serve for every file.
No token is sent (the repositories are public, and a stale token makes the hub refuse even those), nor the hub's telemetry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

_CHUNK = 1 << 18  # small enough that an interrupt on a slow line is noticed at once


class Piece(NamedTuple):
    """Consecutive bytes of a file: `data` belongs at `start`; `total` is the size of the whole file, if the hub says."""

    start: int
    total: int | None
    data: bytes


class Refused(Exception):
    """The hub answered, and the answer is no. `status` is the HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


class Unreachable(Exception):
    """No answer, or an answer that broke off. Trying again may help."""


class Offline(Exception):
    """The hub was not asked, because HF_HUB_OFFLINE forbids it."""


def receive(url: str, offset: int) -> Generator[Piece, None, None]:
    """The pieces of the file at `url` from `offset` on, or from 0 on if the server cannot resume; none if nothing is left.

    Raises Refused (416 if the file is shorter than `offset`), Unreachable or Offline; pieces before the break have been yielded.
    """
    from huggingface_hub.utils import OfflineModeIsEnabled

    headers = {"User-Agent": "diaphane", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        with _get(url, headers) as (response, chunks):
            position, total = _extent(response)
            if response.status_code == 416 and total == offset:
                return
            if response.status_code not in (200, 206):
                raise Refused(response.status_code)
            for chunk in chunks(_CHUNK):
                yield Piece(position, total, chunk)
                position += len(chunk)
            if total is not None and position < total:
                raise Unreachable(f"the connection was cut after {position:,} of {total:,} bytes")
    except (Refused, Unreachable):
        raise
    except OfflineModeIsEnabled as error:
        raise Offline(str(error)) from error
    except Exception as error:  # of httpx, httpx2 or requests, which share no base class; the consumer's never come here
        raise Unreachable(f"{type(error).__name__}: {error}") from error


@contextmanager
def _get(url: str, headers: dict[str, str]) -> Iterator[tuple[Any, Callable[[int], Iterator[bytes]]]]:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(getattr(session, "stream", None)):  # an httpx client, huggingface_hub >= 1
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            yield response, response.iter_bytes
    else:  # a requests session
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            yield response, response.iter_content


def _extent(response: Any) -> tuple[int, int | None]:
    """Where the body starts and how long the whole file is, from the response's headers."""
    if match := re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")):
        return int(match[1] or 0), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None else None
