"""What an artist may be told: one short message that says what was got, what is needed and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

LONGEST = 800


def told(call: Callable[[], Any], words: Iterable[str]) -> str:
    """The message of the DiaphaneError that a call ends with. It is one line, short, and has all the words."""
    with pytest.raises(Exception) as caught:
        call()
    error = caught.value
    # Of the pack as the host imported it, or of the library as the tests import it.
    assert (type(error).__module__, type(error).__name__) == ("diaphane", "DiaphaneError"), f"{type(error).__name__}: {error}"
    message = str(error)
    assert [word for word in words if word not in message] == [], message
    assert len(message) < LONGEST and "\n" not in message and message.endswith((".", "restart ComfyUI.", ": check it.")), message
    return message
