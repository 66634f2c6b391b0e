"""Class names: what a name may be, and which class a word means. A class without a name is known by its number alone."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import LabelError
from .wording import listed

_UNPRINTED = {
    "Cc",
    "Cs",
    "Zl",
    "Zp",
}  # Unicode categories: control characters, bytes that are no text, line separators
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")

GUESS = "guess"  # in place of a label: the model guesses the class of each image
ALL = "all"  # in place of a list of labels: every class of the model, in order

NO_CLASSES = "this model has no classes, so it takes no labels; leave them out"
NOTHING_TO_GUESS = "this model has no classes, so there is no label to guess; leave it out"


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
            raise ValueError(
                f"{name!r} cannot be a class name: it is empty, or has characters that cannot be printed in a line"
            )
        if text in found:
            raise ValueError(f"two classes have the name {text!r}")
        found[text] = None
    return tuple(found)


def label_of(word: str, num_classes: int | None, names: Sequence[str] | None) -> int:
    """Return the class with the name `word`, else the class with the number `word`. Raises LabelError.

    num_classes: None for a model without classes, which refuses every word.
    """
    if num_classes is None:
        raise LabelError(NO_CLASSES)
    name = _normal(word)
    if names and name in names:
        return names.index(name)
    classes = f"classes 0 to {num_classes - 1}{f': {listed(names)}' if names else ''}"
    if _NUMBER.fullmatch(name):
        if 0 <= int(name) < num_classes:
            return int(name)
        raise LabelError(f"label {name} is out of range; this model has {classes}")
    if not names:
        raise LabelError(
            f"{word!r} is not a label: this model has no class names; give a number from 0 to {num_classes - 1}"
        )
    close = _similar(name, names)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise LabelError(f"no class of this model is named {word!r}{hint}; it has {classes}")


def _similar(word: str, names: Sequence[str]) -> list[str]:
    """At most three names that are spelt like the word, or begin with it."""
    folded = word.casefold()
    spelt = difflib.get_close_matches(folded, [name.casefold() for name in names], 3)
    return [
        name for name in names if name.casefold() in spelt or (folded and name.casefold().startswith(folded))
    ][:3]


def named_labels(arrays: Mapping[str, np.ndarray], where: str) -> np.ndarray | None:
    """`labels` of an npz file: names where it has `classes`, by which a model finds them; else as they are. Raises LabelError."""
    labels, classes = labels_in(arrays, where)
    return labels if labels is None or classes is None else np.array(classes)[labels]


def labels_of(text: str, num_classes: int | None, names: Sequence[str] | None) -> list[int]:
    """Return the classes in a list such as "3", "0,1,2", "dog,cat" or "all". Raises LabelError.

    A text that is the name of a class as a whole is not split at its commas.
    """
    if num_classes is None:
        raise LabelError(NO_CLASSES)
    if text == ALL:
        return list(range(num_classes))
    is_one_name = bool(names) and _normal(text) in names
    words = [text] if is_one_name else text.split(",")
    return [label_of(word, num_classes, names) for word in words]


def refuse_guess(label: object) -> None:
    """Raise LabelError for GUESS, where there is no image that a label can be guessed from."""
    if label == GUESS:
        raise LabelError(
            f"label {GUESS!r} needs an image to guess from, and there is none yet; give the class by number or name"
        )


def labels_in(
    arrays: Mapping[str, np.ndarray], where: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """(labels int64, class names) from the arrays of an npz file, None where it has none. Raises LabelError.

    `labels`: integers, or names. `classes`: the names of all classes in the order of their numbers, by default those that `labels` has.
    """
    labels, names = arrays.get("labels"), arrays.get("classes")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U" or labels is None):
        wrong = (
            "but no `labels`" if labels is None else f"of shape {list(names.shape)} and type {names.dtype}"
        )
        raise LabelError(
            f"{where}: has `classes` {wrong}; they must be a list of texts, the names of the classes that `labels` number"
        )
    if labels is None:
        return None, None
    if labels.dtype.kind not in "iuU":
        hint = (
            "; convert them with labels.astype(int)" if labels.dtype.kind in "fb" and labels.ndim == 1 else ""
        )
        raise LabelError(f"{where}: labels must be integers from 0, or class names, not {labels.dtype}{hint}")
    try:
        classes = None if names is None else class_names(names.tolist())
        if labels.dtype.kind == "U":
            return _numbered(labels, classes)
    except ValueError as error:
        raise LabelError(f"{where}: labels and `classes` cannot be used ({error})") from error
    labels = labels.astype(np.int64)
    if classes is not None and labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise LabelError(
            f"{where}: labels go from {labels.min()} to {labels.max()}, but `classes` names classes 0 to {len(classes) - 1}"
        )
    return labels, classes


def _numbered(labels: np.ndarray, classes: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Names as numbers, and what they number. Raises ValueError."""
    words, rows = np.unique(labels, return_inverse=True)
    names = class_names(words.tolist())
    classes = classes or tuple(in_order(names))
    places = {name: label for label, name in enumerate(classes)}
    if unknown := [name for name in names if name not in places]:
        raise ValueError(f"labels has {listed(unknown)}, which `classes` has not")
    return np.array([places[name] for name in names], np.int64)[rows].reshape(labels.shape), classes


def in_order(names: Sequence[str]) -> list[str]:
    """The names as classes are counted: in alphabetical order, or by value if all are different numbers."""
    return sorted(names, key=int) if all_numbers(names) else sorted(names)


def all_numbers(names: Sequence[str]) -> bool:
    """Whether all names are numbers, and no two the same number."""
    return all(name.isascii() and name.isdecimal() and len(name) < 10 for name in names) and len(
        {*map(int, names)}
    ) == len(names)


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()
