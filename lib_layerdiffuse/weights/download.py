"""Bytes from the hub, beginning at any offset, in order.

`hf_hub_download` of huggingface_hub 1.x deletes what it has when a download fails, so an interrupted download of 3.6 GB starts again.
This file asks the hub's HTTP session (proxies, certificates, offline mode) for ranges, which huggingface.co and its mirrors serve for
every file. No token is sent (the repositories are public, and the hub refuses even those with a stale token), and no telemetry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

_CHUNK = 1 << 18  # bytes; small enough that an interrupt on a slow line is noticed at once


class HubError(Exception):
    """The hub does not send the file; the text says why and what to do.

    retry: whether another try may help at once. status: the HTTP status, 0 if there was no answer.
    """

    def __init__(self, reason: str, *, retry: bool = False, status: int = 0) -> None:
        super().__init__(reason)
        self.retry, self.status = retry, status


def receive(url: str, offset: int) -> Generator[tuple[int, int | None, bytes], None, None]:
    """The file at `url` from `offset` on, or from 0 on if the server cannot resume: (start, size of the whole file if known, bytes).

    Yields nothing if nothing is left. Raises HubError, with status 416 if the file is shorter than `offset`; the pieces before a break
    have been yielded.
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
                raise _refusal(response.status_code)
            for chunk in chunks(_CHUNK):
                yield position, total, chunk
                position += len(chunk)
            if total is not None and position < total:
                raise ConnectionError(f"the connection was cut after {position:,} of {total:,} bytes")
    except HubError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so it was not downloaded. Unset it and restart ComfyUI") from error
    except Exception as error:  # of httpx, httpx2 or requests, which share no base class; the caller's errors are not raised here
        cause = f"{type(error).__name__}: {error}"
        raise HubError(
            f"the hub could not be reached or broke off ({cause}). Try again: what has come so far is kept", retry=True
        ) from error


def _refusal(status: int) -> HubError:
    if status in (401, 403):
        reason = f"the hub refuses access (HTTP {status}). Open the link in a browser to see what it asks for"
    elif status == 404:
        reason = "the hub does not have it there any more (HTTP 404). Look for a newer Diaphane"
    else:
        reason = f"the hub has trouble (HTTP {status}). Try again in a few minutes"
    return HubError(reason, retry=status >= 500, status=status)


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
