"""The directories that hold the layers of one driver: its own, that of images if they lie apart, and additional ones.

New layers that containers write to go to the driver's own home; all others to the home of images, if there is one.
The homes of additional stores are only read. A layer is looked for in this order, and found in one home.
"""

from __future__ import annotations

import os

from layerhold.values import Value


class Homes(Value):
    """Directories with a directory for each layer. `images` is "" where images have no home of their own."""

    own: str
    images: str = ""
    additional: tuple[str, ...] = ()

    @property
    def writable(self) -> tuple[str, ...]:
        """Those in which layers are made and removed."""
        return (self.own, self.images) if self.images else (self.own,)

    @property
    def every(self) -> tuple[str, ...]:
        """All of them, in the order of the look-up."""
        return (*self.writable, *self.additional)

    def for_new(self, *, writable: bool) -> str:
        """Say where a new layer goes."""
        return self.own if writable or not self.images else self.images

    def of(self, id: str) -> str:
        """Say which home has layer `id`; the driver's own if none has."""
        if self.images or self.additional:
            for home in self.every:
                if os.path.isdir(os.path.join(home, id)):
                    return home
        return self.own
