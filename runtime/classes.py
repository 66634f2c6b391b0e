"""Class names and labels: which names are valid, and which class a word names.

Every class has a number. Classes of some models also have names.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import LabelError
from .wording import argument, listed

# Unicode categories of characters that cannot be printed in a line: control characters, surrogates (bytes
# that are not valid text), line and paragraph separators.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")

GUESS = "guess"  # may be written in place of a label: the model guesses the class of each image
ALL = "all"  # may be written in place of a list of labels: every class of the model, in order

NO_CLASSES = "this model has no classes, so it takes no labels; leave them out"
NOTHING_TO_GUESS = "this model has no classes, so there is no label to guess; leave it out"


def class_names(names: object) -> tuple[str, ...]:
    """Return a list of names in composed Unicode (NFC), without blanks at their ends.

    Raises ValueError if `names` is not a list of texts, for empty and equal names, and for characters that
    cannot be printed in a line.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError("class names must be a list of texts")
    normal_names: dict[str, None] = {}
    for name in names:
        normal_name = _normal(name)
        categories = {unicodedata.category(character) for character in normal_name}
        if not normal_name or categories & _UNPRINTABLE:
            raise ValueError(
                f"{name!r} cannot be a class name: "
                "it is empty, or has characters that cannot be printed in a line"
            )
        if normal_name in normal_names:
            raise ValueError(f"two classes have the name {normal_name!r}")
        normal_names[normal_name] = None
    return tuple(normal_names)


def label_texts(labels: Iterable[int] | None, names: Sequence[str] | None) -> list[str]:
    """Return the names of the classes of labels, or their numbers if they have no names; [] for None."""
    numbers = [] if labels is None else np.asarray(labels).tolist()
    return [str(names[number] if names else number) for number in numbers]


def label_of(word: str, num_classes: int | None, names: Sequence[str] | None) -> int:
    """Return the class with the name `word`, else the class with the number `word`.

    num_classes: the number of classes of the model, or None for a model without classes.
    names: the names of the classes, or None.

    Raises LabelError if no class has this name or number, and always for a model without classes.
    """
    if num_classes is None:
        raise LabelError(NO_CLASSES)
    name = _normal(word)
    if names and name in names:
        return names.index(name)
    all_names = f": {listed(names)}" if names else ""
    classes = f"classes 0 to {num_classes - 1}{all_names}"
    if _NUMBER.fullmatch(name):
        if 0 <= int(name) < num_classes:
            return int(name)
        raise LabelError(f"label {name} is out of range; this model has {classes}")
    if not names:
        raise LabelError(
            f"{word!r} is not a label: "
            f"this model has no class names; give a number from 0 to {num_classes - 1}"
        )
    close = _similar(name, names)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise LabelError(f"no class of this model is named {word!r}{hint}; it has {classes}")


def _similar(word: str, names: Sequence[str]) -> list[str]:
    """Return at most three names that have a similar spelling, or begin with the word."""
    beginning = word.casefold()
    similar = difflib.get_close_matches(beginning, [name.casefold() for name in names], 3)

    def suits(name: str) -> bool:
        return name in similar or bool(beginning and name.startswith(beginning))

    return [name for name in names if suits(name.casefold())][:3]


def named_labels(arrays: Mapping[str, np.ndarray], where: str) -> np.ndarray | None:
    """Return the labels of an npz file in the form in which a model accepts them, or None without labels.

    The labels are class names if the file has an array `classes`, else numbers: the class numbers of a file
    and of a model may differ. where: the beginning of messages. Raises LabelError.
    """
    labels, classes = labels_in(arrays, where)
    if labels is None or classes is None:
        return labels
    return np.array(classes)[labels]


def labels_of(
    text: str, num_classes: int | None, names: Sequence[str] | None, where: str | None = None
) -> list[int]:
    """Return the classes in a list such as "3", "0,1,2", "dog,cat" or "all". Raises LabelError.

    A text that is the name of a class as a whole is not split at its commas.

    where: the beginning of messages about the list, by default "labels: " in Python and "--label: " on the
    command line.
    """
    if num_classes is None:
        raise LabelError(NO_CLASSES)
    if text == ALL:
        return list(range(num_classes))
    is_one_name = bool(names) and _normal(text) in names
    words = [text] if is_one_name else text.split(",")
    if len(words) > 1 and not all(map(str.strip, words)):
        where = argument("labels: ", "--label: ") if where is None else where
        raise LabelError(f"{where}empty entry in {text!r}; separate labels with one comma")
    return [label_of(word, num_classes, names) for word in words]


def repeated_labels(text: str, n: int, num_classes: int | None, names: Sequence[str] | None) -> list[int]:
    """Return the classes in a list such as "dog,cat" or "all", repeated in order for n images.

    Raises LabelError.
    """
    labels = labels_of(text, num_classes, names)
    return [labels[index % len(labels)] for index in range(n)]


def asks_to_guess(labels: object) -> bool:
    """Return whether the model is to guess the labels."""
    return isinstance(labels, str) and labels == GUESS


def refuse_guess(label: object, name: str | None = None) -> None:
    """Raise LabelError if the label is GUESS. For tasks without an image to guess from.

    name: what the caller names the label, by default `labels=` in Python and --label in a command.
    """
    if asks_to_guess(label):
        labels = f"{name} {GUESS}" if name else argument(f"labels={GUESS!r}", f"--label {GUESS}")
        raise LabelError(f"{labels} needs images as input; give a number or a name")


def labels_in(
    arrays: Mapping[str, np.ndarray], where: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Return (labels as int64, class names) of the arrays of an npz file; None for those it does not have.

    The array `labels` has integers, or names. The array `classes` has the names of all classes, in the order
    of their numbers; by default these are the names in `labels`.

    where: the beginning of messages. Raises LabelError.
    """
    labels, names = arrays.get("labels"), arrays.get("classes")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U" or labels is None):
        problem = "but no `labels`"
        if labels is not None:
            problem = f"of shape {list(names.shape)} and type {names.dtype}"
        raise LabelError(
            f"{where}: has `classes` {problem}; `classes` must be a list of texts, the names of the classes "
            "whose numbers are in `labels`"
        )
    if labels is None:
        return None, None
    if labels.dtype.kind not in "iuU":
        is_convertible = labels.dtype.kind in "fb" and labels.ndim == 1
        hint = "; convert them with labels.astype(int)" if is_convertible else ""
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
            f"{where}: labels go from {labels.min()} to {labels.max()}, "
            f"but `classes` names classes 0 to {len(classes) - 1}"
        )
    return labels, classes


def _numbered(labels: np.ndarray, classes: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels that are names as numbers, int64 of the same shape, and the names of all classes.

    classes: the names of all classes, by default those that the labels have. Raises ValueError.
    """
    words, rows = np.unique(labels, return_inverse=True)
    names = class_names(words.tolist())
    classes = classes or tuple(in_order(names))
    number_of = {name: number for number, name in enumerate(classes)}
    unknown = [name for name in names if name not in number_of]
    if unknown:
        raise ValueError(f"`labels` contains {listed(unknown)}, but `classes` does not")
    numbers = np.array([number_of[name] for name in names], np.int64)
    return numbers[rows].reshape(labels.shape), classes


def in_order(names: Sequence[str]) -> list[str]:
    """Return the names in alphabetical order, or by value if all are different numbers."""
    return sorted(names, key=int) if all_numbers(names) else sorted(names)


def all_numbers(names: Sequence[str]) -> bool:
    """Whether all names are numbers, and no two names are the same number."""
    if not all(name.isascii() and name.isdecimal() and len(name) < 10 for name in names):
        return False
    return len(set(map(int, names))) == len(names)


def _normal(name: str) -> str:
    """Return a name in the form in which names are stored and compared."""
    return unicodedata.normalize("NFC", name).strip()
