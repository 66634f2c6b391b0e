"""The labels of a job of bcm-edge map: those of --label, of the data, or of folders that are classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LabelError
from ..runtime.arguments import check_labels
from ..runtime.classes import GUESS, NOTHING_TO_GUESS, label_of, labels_of, refuse_guess
from ..runtime.pipeline import BCM

if TYPE_CHECKING:
    from ..jobs.dataset import Source


def job_labels(text: str | None, task: str, bcm: BCM, sources: Sequence[Source]) -> list[int] | str | None:
    """Return the value of `Job.labels`.

    text: the value of --label. Raises LabelError, also if required labels are missing.
    """
    from ..jobs.dataset import held_arrays

    if text == GUESS:
        if task == "generate":
            refuse_guess(text)
        if bcm.num_classes is None:
            raise LabelError(NOTHING_TO_GUESS)
        return GUESS
    if text is not None:
        return labels_of(text, bcm.num_classes, bcm.classes)
    _check_class_folders(bcm, sources)
    if "labels" not in held_arrays(sources) and bcm.num_classes is not None:
        check_labels(None, 1, bcm.num_classes, bcm.classes)
    return None


def _check_class_folders(bcm: BCM, sources: Sequence[Source]) -> None:
    """Raise LabelError for a folder of images whose name is no class of the model."""
    if bcm.num_classes is None:
        return
    for source in sources:
        if "labels" in source.holds and Path(source.path).is_dir():
            try:
                label_of(Path(source.path).name, bcm.num_classes, bcm.classes)
            except LabelError as error:
                raise LabelError(f"{source.path}: {error}; --label replaces these labels") from None
