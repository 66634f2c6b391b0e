"""What the page asks for, done by the model: JSON objects in, JSON objects out. Nothing here knows of HTTP.

Pictures travel as PNG data URLs in the model's size; every answer says its network calls (nfe), milliseconds and schedule.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..errors import ImageError
from ..runtime.chain import start_state
from ..runtime.classes import GUESS, label_of, refuse_guess
from ..runtime.pictures.writing import heat
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, mean_squared_error
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN, Schedule
from ..runtime.tasks.classes import DRAWS
from ..runtime.tasks.constrained import inpainting
from ..runtime.tasks.trace import picture
from .asked import Asked, data_url

MOST_SEEDS = 2**64 - 1
MOST_FRAMES = 65
Answer = dict[str, Any]
T = TypeVar("T")


class Answers:
    """One model, and what can be asked of it by name. One question at a time is answered; others wait."""

    def __init__(self, bcm: BCM) -> None:
        """Raises ImageError for a model whose images are no pictures."""
        if bcm.sample_shape[0] not in (1, 3):
            raise ImageError(
                f"a window shows grey or colour pictures; this model has {bcm.sample_shape[0]} channels"
            )
        self._bcm = BCM(
            bcm.bundle, bcm.backend, bcm.batch, SIGNED
        )  # all pictures are read to [-1, 1], white ones too
        self._lock = threading.Lock()
        self.tasks: dict[str, Callable[[Asked], Answer]] = {
            "picture": self._picture,
            "generate": self._generate,
            "reconstruct": self._reconstruct,
            "interpolate": self._interpolate,
            "inpaint": self._inpaint,
        }

    def answer(self, task: str, fields: dict[str, Any]) -> Answer:
        """The answer of one of `tasks`. Raises BcmError."""
        with self._lock:
            return self.tasks[task](Asked(fields))

    def about(self) -> Answer:
        """The model, its schedules, and what plays it."""
        bcm, facts = self._bcm, self._bcm.bundle.manifest.model
        programs = {name: bcm.schedule(name) for name in bcm.schedules}
        ends = {"generate": (SIGMA_MAX, SIGMA_MIN, False), "invert": (None, SIGMA_MAX, True)}
        schedules = {
            kind: [
                {"name": name, "text": str(p), "nfe": p.nfe}
                for name, p in programs.items()
                if start in (None, p.start) and (p.end, p.from_image) == (end, from_image)
            ]
            for kind, (start, end, from_image) in ends.items()
        }
        return {
            "name": facts.name,
            **dict(zip(("channels", "height", "width"), bcm.sample_shape, strict=True)),
            "classes": bcm.num_classes,
            "names": bcm.classes,
            "parameters": facts.parameters,
            "schedules": schedules,
            "player": f"{bcm.backend.precision} on {bcm.backend.name}: {bcm.backend.device}",
        }

    def warm_up(self) -> None:
        """Play both directions once: what cannot be played is said at the start, and the first answer takes no longer than others."""
        label, grey = (
            None if self._bcm.num_classes is None else 0,
            np.zeros((1, *self._bcm.sample_shape), np.float32),
        )
        with self._lock:
            self._bcm.reconstruct(grey, inversion="+0.07 0.07>80", schedule="80>0.002", labels=label)

    def close(self) -> None:
        """Free the model, once the question in work is answered."""
        with self._lock:
            self._bcm.close()

    def _picture(self, asked: Asked) -> Answer:
        """picture → the same as the model sees it."""
        return {"picture": data_url(asked.picture("picture", self._bcm.sample_shape)[0])}

    def _generate(self, asked: Asked) -> Answer:
        """seed, label, schedule → picture, and the noise it came from."""
        bcm, seed, label = self._bcm, _seed(asked), self._told(asked, "label")
        program = bcm.schedule(asked.text("schedule", "one-step"))
        images, milliseconds = _timed(lambda: bcm.generate(1, schedule=program, seed=seed, labels=label))
        noise = picture(start_state(program, bcm.backend, [seed]), program.start)
        return {
            "picture": data_url(images[0]),
            "noise": data_url(noise[0]),
            "label": label,
            **_run(program, program.nfe, milliseconds),
        }

    def _reconstruct(self, asked: Asked) -> Answer:
        """picture, label, inversion, schedule, seed → picture, latent, original, where it errs, mse."""
        bcm, seed, given = self._bcm, _seed(asked), asked.picture("picture", self._bcm.sample_shape)
        label, guess_nfe = self._guessed(asked, "label", given, seed)
        up, down = (
            bcm.schedule(asked.text("inversion", "invert-2")),
            bcm.schedule(asked.text("schedule", "one-step")),
        )
        states: list[np.ndarray] = []
        back, milliseconds = _timed(
            lambda: bcm.reconstruct(
                given,
                inversion=up,
                schedule=down,
                seed=seed,
                labels=label,
                on_move=lambda _index, _move, state: states.append(state),
            )
        )
        error = np.abs(back - given).max(axis=1, keepdims=True)
        pictures = {
            "original": given,
            "latent": picture(states[up.nfe - 1], SIGMA_MAX),
            "picture": back,
            "error": heat(error),
        }
        return {
            **{name: data_url(images[0]) for name, images in pictures.items()},
            "mse": float(mean_squared_error(given, back)[0]),
            "label": label,
            "guess_nfe": guess_nfe,
            **_run(up + down, up.nfe + down.nfe, milliseconds),
        }

    def _interpolate(self, asked: Asked) -> Answer:
        """a, b, label, label_b (null: label), frames, inversion, schedule, seed → frames, from the reconstruction of a to that of b."""
        bcm, seed = self._bcm, _seed(asked)
        a, b = (asked.picture(name, bcm.sample_shape) for name in ("a", "b"))
        frames = asked.integer("frames", 9, 2, MOST_FRAMES)
        label, guess_nfe = self._guessed(asked, "label", a, seed)
        label_b, guess_nfe_b = self._guessed(
            asked, "label" if asked.label("label_b") is None else "label_b", b, seed
        )
        up, down = (
            bcm.schedule(asked.text("inversion", "invert-2")),
            bcm.schedule(asked.text("schedule", "one-step")),
        )
        way, milliseconds = _timed(
            lambda: bcm.interpolate(
                a, b, frames=frames, inversion=up, schedule=down, seed=seed, labels=label, labels_b=label_b
            )
        )
        return {
            "frames": [data_url(frame) for frame in way[0]],
            "label": label,
            "label_b": label_b,
            "guess_nfe": guess_nfe + guess_nfe_b,
            **_run(up + down, 2 * up.nfe + frames * down.nfe, milliseconds),
        }

    def _inpaint(self, asked: Asked) -> Answer:
        """picture, mask, label, schedule, seed → picture, and the share of it that was filled in."""
        bcm, seed, given = self._bcm, _seed(asked), asked.picture("picture", self._bcm.sample_shape)
        holes = asked.mask("mask", *bcm.sample_shape[1:])
        label, text = self._told(asked, "label"), asked.text("schedule", "")
        program = bcm.schedule(text) if text else inpainting(bcm.sample_shape)
        filled, milliseconds = _timed(
            lambda: bcm.inpaint(given, holes, schedule=program, seed=seed, labels=label)
        )
        return {
            "picture": data_url(filled[0]),
            "filled": float(holes.mean()),
            "label": label,
            **_run(program, program.nfe, milliseconds),
        }

    def _told(self, asked: Asked, name: str) -> int | None:
        """The label that was given. Raises LabelError for GUESS."""
        label = asked.label(name)
        refuse_guess(label)
        return self._number(label)

    def _guessed(self, asked: Asked, name: str, image: np.ndarray, seed: int) -> tuple[int | None, int]:
        """The label that was given, or is guessed of an image [1, C, H, W]; and the network calls which that took."""
        label = asked.label(name)
        if label != GUESS:
            return self._number(label), 0
        return int(self._bcm.guess_labels(image, seed=seed)[0]), DRAWS * (self._bcm.num_classes or 0)

    def _number(self, label: int | str | None) -> int | None:
        """The number of a class that may be given by name. Raises LabelError for a name that the model does not have."""
        if not isinstance(label, str):
            return label
        return label_of(label, self._bcm.num_classes, self._bcm.classes)


def _seed(asked: Asked) -> int:
    return asked.integer("seed", 0, 0, MOST_SEEDS)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work returns, and its milliseconds."""
    started = time.perf_counter()
    values = work()
    return values, 1000 * (time.perf_counter() - started)


def _run(program: Schedule, nfe: int, milliseconds: float) -> Answer:
    return {"nfe": nfe, "milliseconds": milliseconds, "schedule": str(program)}
