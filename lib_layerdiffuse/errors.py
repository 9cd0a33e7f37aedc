"""The one exception that is meant for the artist's eyes."""

from __future__ import annotations


class DiaphaneError(Exception):
    """A problem that the artist can mend.

    The message is one or two sentences: what was got, what is needed, and which node or setting mends it.
    """

    # ComfyUI shows the type by its module, which for a node pack is the folder that it is installed in.
    __module__ = "diaphane"


class WeightsError(DiaphaneError):
    """What is in a file of weights is not what is needed. Whoever knows the file's name puts it before the message."""

    __module__ = "diaphane"
