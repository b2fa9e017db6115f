"""Text for terminals: characters that would control one are escaped."""

import re
from typing import Final

_CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
"""C0, C1, and what breaks lines, changes the direction of text or cannot be seen; surrogates cannot be written."""


def printable(text: str) -> str:
    """Return text with such characters escaped as JSON escapes them, so that JSON stays the same JSON."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
