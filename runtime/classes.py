"""Class names: what a name may be, and which class a word means. A class without a name is known by its number alone."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from ..errors import LabelError

SHOWN = 10  # names in a message; the rest is counted
_UNPRINTED = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, bytes that are no text, line separators
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def class_names(names: object) -> tuple[str, ...]:
    """A list of names, in composed Unicode (NFC) and without blanks around them.

    Raises ValueError for what is not a list of texts, for empty and equal names, and for characters that cannot be printed in a line.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError("class names must be a list of texts")
    found: dict[str, None] = {}
    for name in names:
        text = _normal(name)
        if not text or any(unicodedata.category(letter) in _UNPRINTED for letter in text):
            raise ValueError(f"{name!r} cannot be a class name: it is empty, or has characters that cannot be printed in a line")
        if text in found:
            raise ValueError(f"two classes have the name {text!r}")
        found[text] = None
    return tuple(found)


def label_of(word: str, num_classes: int, names: Sequence[str] | None) -> int:
    """The class that a word means: the one of that name, else the one of that number. Raises LabelError."""
    name = _normal(word)
    if names and name in names:
        return names.index(name)
    classes = f"classes 0 to {num_classes - 1}{f': {listed(names)}' if names else ''}"
    if _NUMBER.fullmatch(name):
        if 0 <= int(name) < num_classes:
            return int(name)
        raise LabelError(f"label {name} is out of range; this model has {classes}")
    if not names:
        raise LabelError(f"{word!r} is not a label: this model has no class names; give a number from 0 to {num_classes - 1}")
    similar = difflib.get_close_matches(name.casefold(), [other.casefold() for other in names], 3)
    close = [other for other in names if other.casefold() in similar][:3]
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise LabelError(f"no class of this model is named {word!r}{hint}; it has {classes}")


def labels_of(text: str, num_classes: int, names: Sequence[str] | None) -> list[int]:
    """The classes of a list such as "3", "0,1,2" or "dog,cat". A text that is a name as a whole is not split. Raises LabelError."""
    whole = bool(names) and _normal(text) in names
    return [label_of(word, num_classes, names) for word in ([text] if whole else text.split(","))]


def listed(words: Sequence[str]) -> str:
    """The words with commas between them, shortened where they are many."""
    more = len(words) - SHOWN
    return ", ".join(words) if more <= 1 else f"{', '.join(words[:SHOWN])} and {more} more"


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()
