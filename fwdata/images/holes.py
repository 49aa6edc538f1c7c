"""Runs of zeros in packets of a video: parts of a file that were never written, unlike what encoders fill up with."""

from __future__ import annotations

from dataclasses import dataclass, field

from fwdata.images.video import hole_in

_FILLED, _SHARE = 128, 8
"""Zeros at the end of a packet, at most, by which it may have been filled up to a multiple of 64 bytes or less; of how
many packets one must end so. A hole has one begin: few packets end in the first bytes of one."""


@dataclass
class Holes:
    """Tells holes from filling, once all packets were seen."""

    extradata: bytes
    """Parameter sets of the stream."""
    codec: str
    """Its name."""
    seen: int = 0
    """Packets that were looked at."""
    found: dict[int, int] = field(default_factory=dict)
    """Packet with many zeros in a row -> how many, at least."""
    filled: set[int] = field(default_factory=set)
    """Those of them that have few, and at their end alone."""

    def see(self, data: bytes) -> bool:
        """Look at the next packet. Whether it has many zeros elsewhere than at its end."""
        count = hole_in(data, self.extradata, self.codec)
        inside = False
        if count:
            self.found[self.seen] = count
            front = data.rstrip(b"\0")
            inside = not front or hole_in(front, self.extradata, self.codec) > 0
            if not inside and len(data) - len(front) < _FILLED:
                self.filled.add(self.seen)
        self.seen += 1
        return inside

    def real(self) -> dict[int, int]:
        """`found` without those of an encoder that fills up packets: it does so in most of them where it fills up much,
        and in many where it fills up little."""
        if 2 * len(self.found) > self.seen:
            return {}
        often = len(self.filled) > 1 and _SHARE * len(self.filled) >= self.seen
        return {number: count for number, count in self.found.items() if not (often and number in self.filled)}
