"""Cameras side by side on a black frame of 16 pixels."""

from fwdata.images.layouts import Size, StitchLayout, Tile

BORDER = 16


class Framed(StitchLayout):
    def tiles(self, cameras: int, camera_size: Size, size: Size) -> list[Tile]:
        if self.size_of(cameras, camera_size) != size:
            raise ValueError(f"layout 'framed' of {cameras} cameras of {camera_size} is not {size}")
        height, width = camera_size
        return [(BORDER, BORDER + i * width, height, width) for i in range(cameras)]

    def size_of(self, cameras: int, camera_size: Size) -> Size:
        return camera_size[0] + 2 * BORDER, camera_size[1] * cameras + 2 * BORDER


LAYOUT = Framed()
