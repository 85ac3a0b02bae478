"""The one exception a user's mistake raises; the command line prints it as one sentence."""

from __future__ import annotations


class InputError(Exception):
    """Bad input. The message is one sentence holding the value, the limit and the fix."""
