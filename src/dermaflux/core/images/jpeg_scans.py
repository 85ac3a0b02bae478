"""How many passes over all pixels a JPEG makes a decoder do, without decoding it.

Markers and segments are those of ITU-T T.81, annex B.
"""

from __future__ import annotations

import re

# Between segments decoders skip what is no marker; stuffed bytes, restarts and fill are none.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_MAXIMUM_SEGMENTS = 10_000  # colour profiles and thumbnails take some hundred at most


def scan_count(content: bytes, limit: int) -> int:
    """Scans of the first picture, counted until there are more than `limit`.

    A picture whose only scan holds all components has one, whatever follows it. A file of more
    than 10,000 segments counts as one above the limit.
    """
    position, scans, components = 2, 0, 0
    progressive = False
    for _ in range(_MAXIMUM_SEGMENTS):
        found = _MARKER.search(content, position)
        if found is None:
            return scans
        marker, position = found[1][0], found.end()
        if marker == _START_OF_IMAGE:
            continue
        if marker == _END_OF_IMAGE:
            return scans
        segment = content[position + 2 : position + 10]
        if marker in _FRAMES and len(segment) > 5:
            progressive, components = marker in _PROGRESSIVE, segment[5]
        elif marker == _START_OF_SCAN:
            scans += 1
            complete = not progressive and segment[:1] == bytes([components])
            if scans > limit or (scans == 1 and complete):
                return scans
        position += max(2, int.from_bytes(content[position : position + 2], "big"))
    return limit + 1
