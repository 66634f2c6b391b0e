"""Pictures in labelled rows: every grid that this package writes is drawn here.

Small images are enlarged by repeating their pixels (nearest neighbour) by a whole factor: the pixels of the
model stay visible. Texts are drawn in the font of Pillow, which has the characters of ASCII; others are
replaced.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..pixels import to_uint8

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

CELL = 128  # pixels; small images are enlarged to at least this size
GAP = 6  # pixels between pictures
MARGIN = 14  # pixels around a labelled grid, and between groups of rows
FONT_SIZE, TITLE_SIZE = 16, 19  # pixels
LABEL_WIDTH = 190  # pixels; longer labels of rows are wrapped
MOST_LINES = 6  # of a label
BACKGROUND, INK, FRAME = "white", "#282828", "#cdcdcd"
_REPLACED = str.maketrans(
    {"×": "x", "→": ">", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "∞": "inf", "σ": "sigma"}
)


@dataclass(frozen=True)
class Grid:
    """Pictures in rows, with labels. Unused cells at the end of a row have the colour of the background.

    A label that does not fit is wrapped, and then shortened. Without labels, no space is left for them.
    """

    # One array per row: [n, C, H, W], floats in [-1, 1] or uint8, with C = 1 or 3. If a row is in colour, all
    # rows are converted to colour.
    rows: Sequence[np.ndarray]
    # A line above the grid, for example the schedule and the number of network calls.
    title: str = ""
    # One label per row, on the left.
    row_labels: Sequence[str] = ()
    # One label per column, above the first row.
    column_labels: Sequence[str] = ()
    # For each row, one text below each picture; an empty sequence for none.
    captions: Sequence[Sequence[str]] = ()
    # The number of successive rows that belong together, such as inputs and outputs.
    group: int = 1


def labelled_grid(grid: Grid, scale: int | None = None) -> np.ndarray:
    """Return the picture of a grid, uint8 [C, H', W'].

    scale: the whole factor of the enlargement (default: `enlargement`). With 1, the images stand side by side
    without labels, gaps and margins: the picture has the plain pixels.
    """
    rows = _in_common_channels(grid.rows)
    if scale == 1:
        return _plain(rows)
    height, width = rows[0].shape[2:]
    factor = scale or enlargement(height, width)
    return _drawn(grid, [to_uint8(row).repeat(factor, axis=2).repeat(factor, axis=3) for row in rows])


def rows_of(images: np.ndarray, columns: int | None = None) -> list[np.ndarray]:
    """Return images [N, C, H, W] as rows of a grid. columns: by default, the grid is about square."""
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    return [images[start : start + columns] for start in range(0, len(images), columns)]


def pairs(originals: np.ndarray, results: np.ndarray, columns: int) -> list[np.ndarray]:
    """Return rows of originals, each followed by the row of their results: a grid with `group` 2."""
    both = zip(rows_of(originals, columns), rows_of(results, columns), strict=True)
    return [row for pair in both for row in pair]


def enlargement(height: int, width: int, cell: int = CELL) -> int:
    """Return the smallest whole factor that makes the longer side of an image at least `cell` pixels."""
    return max(1, -(-cell // max(height, width)))


def _in_common_channels(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    channels = max(row.shape[1] for row in rows)
    return [np.repeat(row, channels // row.shape[1], axis=1) for row in rows]


def _plain(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the images of rows side by side. Cells without an image are white."""
    _, channels, height, width = rows[0].shape
    columns = max(map(len, rows))
    sheet = np.full((channels, len(rows) * height, columns * width), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(to_uint8(images)):
            sheet[:, row * height :, column * width :][:, :height, :width] = image
    return sheet


class _Text:
    """A text in lines that fit into a width."""

    def __init__(self, text: str, size: int, width: float, height: float = np.inf) -> None:
        """Wrap the text. width, height: of the space, in pixels."""
        from PIL import ImageFont

        self._font = ImageFont.load_default(size)
        self._line_height = size + 4
        most = max(1, int(min(MOST_LINES, height // self._line_height)))
        self._lines = _wrapped(_drawable(text), lambda line: self._font.getlength(line) <= width, most)
        self.width = int(np.ceil(max(map(self._font.getlength, self._lines), default=0)))
        self.height = self._line_height * len(self._lines)

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float, anchor: str) -> None:
        """Draw the text below y. anchor: x is its left end ("l"), its middle ("m") or its right end ("r")."""
        for number, line in enumerate(self._lines):
            top = y + number * self._line_height
            draw.text((x, top), line, INK, font=self._font, anchor=f"{anchor}a")


def _drawable(text: str) -> str:
    """Return a text in ASCII. Letters lose their accents; other characters become "?"."""
    plain = unicodedata.normalize("NFKD", text.translate(_REPLACED))
    letters = "".join(character for character in plain if not unicodedata.combining(character))
    return letters.encode("ascii", "replace").decode()


def _wrapped(text: str, fits: Callable[[str], bool], most: int) -> list[str]:
    """Return at most `most` lines, broken between words. A line that does not fit ends in "..."."""
    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]}..."]
    return [_shortened(line, fits) for line in lines]


def _shortened(line: str, fits: Callable[[str], bool]) -> str:
    if fits(line):
        return line
    ends = (line[:length].rstrip(". ") + "..." for length in range(len(line) - 1, 0, -1))
    return next(filter(fits, ends), line[:1])


class _Sheet:
    """The places of the parts of a grid, in pixels."""

    def __init__(self, grid: Grid, rows: Sequence[np.ndarray]) -> None:
        """rows: the enlarged images, uint8 [n, C, H, W]."""
        self.rows = rows
        self.channels, self.height, self.width = rows[0].shape[1:]
        self.labels = [_Text(text, FONT_SIZE, LABEL_WIDTH, self.height) for text in grid.row_labels]
        self.headings = [_Text(text, FONT_SIZE, self.width) for text in grid.column_labels]
        self.captions = [[_Text(text, FONT_SIZE, self.width) for text in texts] for texts in grid.captions]
        label_width = max((label.width for label in self.labels), default=0)
        self.left = MARGIN + (label_width + 2 * GAP if label_width else 0)
        self.sheet_width = self.x(max(map(len, rows))) - GAP + MARGIN
        self.title = _Text(grid.title, TITLE_SIZE, self.sheet_width - 2 * MARGIN)
        heading_height = max((heading.height for heading in self.headings), default=0)
        self.first = MARGIN + sum(height + GAP for height in (self.title.height, heading_height) if height)
        self.tops = [self.first]
        for index in range(len(rows)):
            texts = self.captions[index] if index < len(self.captions) else []
            caption = max((text.height for text in texts), default=0)
            between_groups = grid.group > 1 and (index + 1) % grid.group == 0
            gap = GAP + (caption + GAP if caption else 0) + (MARGIN if between_groups else 0)
            self.tops.append(self.tops[-1] + self.height + gap)
            self.sheet_height = self.tops[-1] - GAP - (MARGIN if between_groups else 0) + MARGIN

    def x(self, column: int) -> int:
        """Return the left side of a column."""
        return self.left + column * (self.width + GAP)


def _drawn(grid: Grid, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return a grid with its labels, uint8 [C, H', W']. rows: the enlarged images, uint8 [n, C, H, W]."""
    from PIL import Image, ImageDraw

    sheet = _Sheet(grid, rows)
    mode = "L" if sheet.channels == 1 else "RGB"
    picture = Image.new(mode, (sheet.sheet_width, sheet.sheet_height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    sheet.title.draw(draw, MARGIN, MARGIN, "l")
    for column, heading in enumerate(sheet.headings):
        heading.draw(draw, sheet.x(column) + sheet.width / 2, sheet.first - GAP - heading.height, "m")
    for label, top in zip(sheet.labels, sheet.tops, strict=False):
        label.draw(draw, sheet.left - 2 * GAP, top + (sheet.height - label.height) / 2, "r")
    for images, top in zip(rows, sheet.tops, strict=False):
        for column, image in enumerate(images):
            left, right = sheet.x(column), sheet.x(column + 1) - GAP
            frame = (left - 1, top - 1, right, top + sheet.height)
            draw.rectangle(frame, outline=FRAME)
            picture.paste(as_picture(image), (left, top))
    for captions, top in zip(sheet.captions, sheet.tops, strict=False):
        for column, caption in enumerate(captions):
            caption.draw(draw, sheet.x(column) + sheet.width / 2, top + sheet.height + GAP // 2, "m")
    pixels = np.asarray(picture)
    return pixels[None] if sheet.channels == 1 else pixels.transpose(2, 0, 1)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [C, H, W] with C = 1 or 3 as an image of Pillow."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
