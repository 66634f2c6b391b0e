"""The answers to the requests of the page. A request and an answer are JSON objects; HTTP is in server.py.

Pictures are data URLs of PNG files in the model's size. Every answer that used the network has its network
calls (nfe), milliseconds and schedule.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..errors import ImageError
from ..runtime.arguments import check_labels, check_targets
from ..runtime.chain import start_state
from ..runtime.classes import GUESS, label_of, refuse_guess
from ..runtime.pictures.writing import heat
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, mean_squared_error
from ..runtime.schedule import DEFAULT_SCHEDULES, ONE_STEP, SIGMA_MAX, Schedule
from ..runtime.tasks.classes import DRAWS
from ..runtime.tasks.constrained import inpainting
from ..runtime.tasks.trace import picture
from .fields import Fields, data_url

MOST_SEEDS = 2**64 - 1  # the largest seed
MOST_FRAMES = 65
Answer = dict[str, Any]
T = TypeVar("T")


class Answers:
    """One model, and the tasks that the page can request. Requests are answered one at a time."""

    def __init__(self, bcm: BCM) -> None:
        """Raises ImageError if the images of the model are neither grey nor coloured pictures."""
        channels = bcm.sample_shape[0]
        if channels not in (1, 3):
            raise ImageError(
                f"{bcm.bundle.source}: the page needs a model of grey or colour images (1 or 3 channels); "
                f"this one has {channels}"
            )
        # All pictures are read to [-1, 1].
        self._bcm = BCM(bcm.bundle, bcm.backend, bcm.batch, SIGNED)
        self._lock = threading.Lock()
        self.tasks: dict[str, Callable[[Fields], Answer]] = {
            "picture": self._picture,
            "generate": self._generate,
            "reconstruct": self._reconstruct,
            "restyle": self._restyle,
            "interpolate": self._interpolate,
            "inpaint": self._inpaint,
        }

    def answer(self, task: str, values: dict[str, Any]) -> Answer:
        """Return the answer of one of `tasks` to the fields of a request. Raises BcmError."""
        with self._lock:
            return self.tasks[task](Fields(values))

    def about(self) -> Answer:
        """Return the facts of the model, its schedules, and the backend."""
        bcm, model = self._bcm, self._bcm.bundle.manifest.model
        schedules: dict[str, list[Answer]] = {"generate": [], "invert": []}
        for name in bcm.schedules:
            program = bcm.schedule(name)
            facts = {"name": name, "text": str(program), "nfe": program.nfe}
            if program.generates:
                schedules["generate"].append(facts)
            if program.inverts:
                schedules["invert"].append(facts)
        channels, height, width = bcm.sample_shape
        return {
            "name": model.name,
            "channels": channels,
            "height": height,
            "width": width,
            "classes": bcm.num_classes,
            "names": bcm.classes,
            "parameters": model.parameters,
            "schedules": schedules,
            "player": f"{bcm.backend.precision} on {bcm.backend.name}: {bcm.backend.device}",
        }

    def warm_up(self) -> None:
        """Use both directions once, so errors appear at the start, and the first request is not slow."""
        label = None if self._bcm.num_classes is None else 0
        grey = np.zeros((1, *self._bcm.sample_shape), np.float32)
        with self._lock:
            self._bcm.reconstruct(
                grey, inversion=DEFAULT_SCHEDULES["invert-1"], schedule=ONE_STEP, labels=label
            )

    def close(self) -> None:
        """Wait for the current request, and free the model."""
        with self._lock:
            self._bcm.close()

    def _picture(self, fields: Fields) -> Answer:
        """Fields: picture. Returns the picture in the model's size."""
        image = fields.picture("picture", self._bcm.sample_shape)
        return {"picture": data_url(image[0])}

    def _generate(self, fields: Fields) -> Answer:
        """Fields: seed, label, schedule. Returns picture, and the noise that it was made from."""
        bcm, seed, label = self._bcm, _seed(fields), self._label(fields)
        program = bcm.schedule(fields.text("schedule", "one-step"))
        images, milliseconds = _timed(lambda: bcm.generate(1, schedule=program, seed=seed, labels=label))
        noise = picture(start_state(program, bcm.backend, [seed]).values(), program.start)
        return {
            "picture": data_url(images[0]),
            "noise": data_url(noise[0]),
            "label": label,
            **_run(program, program.nfe, milliseconds),
        }

    def _reconstruct(self, fields: Fields) -> Answer:
        """Fields: picture, label, inversion, schedule, seed.

        Returns original, latent, picture (the reconstruction), error (where it differs), mse.
        """
        bcm, seed = self._bcm, _seed(fields)
        original = fields.picture("picture", bcm.sample_shape)
        label, guess_nfe = self._label_or_guess(fields, "label", original, seed)
        up, down = self._there_and_back(fields)
        states: list[np.ndarray] = []
        reconstruction, milliseconds = _timed(
            lambda: bcm.reconstruct(
                original,
                inversion=up,
                schedule=down,
                seed=seed,
                labels=label,
                on_move=lambda call: states.append(call.state),
            )
        )
        error = np.abs(reconstruction - original).max(axis=1, keepdims=True)
        latent = states[up.nfe - 1]
        pictures = {
            "original": original,
            "latent": picture(latent, SIGMA_MAX),
            "picture": reconstruction,
            "error": heat(error),
        }
        return {
            **{name: data_url(images[0]) for name, images in pictures.items()},
            "mse": float(mean_squared_error(original, reconstruction)[0]),
            "label": label,
            "guess_nfe": guess_nfe,
            **_run(up + down, up.nfe + down.nfe, milliseconds),
        }

    def _restyle(self, fields: Fields) -> Answer:
        """Fields: picture, label, to, inversion, schedule, seed. Returns original, latent and picture."""
        bcm, seed = self._bcm, _seed(fields)
        original = fields.picture("picture", bcm.sample_shape)
        to = fields.label("to")
        check_targets(to, 1, bcm.num_classes, bcm.classes)  # before the label is guessed
        label, guess_nfe = self._label_or_guess(fields, "label", original, seed)
        up, down = self._there_and_back(fields)
        states: list[np.ndarray] = []
        restyled, milliseconds = _timed(
            lambda: bcm.restyle(
                original,
                to=to,
                inversion=up,
                schedule=down,
                seed=seed,
                labels=label,
                on_move=lambda call: states.append(call.state),
            )
        )
        latent = picture(states[up.nfe - 1], SIGMA_MAX)
        pictures = {"original": original, "latent": latent, "picture": restyled}
        return {
            **{name: data_url(images[0]) for name, images in pictures.items()},
            "label": label,
            "to": self._number(to),
            "guess_nfe": guess_nfe,
            **_run(up + down, up.nfe + down.nfe, milliseconds),
        }

    def _interpolate(self, fields: Fields) -> Answer:
        """Fields: a, b, label, label_b (default: label), frames, inversion, schedule, seed.

        Returns frames, from the reconstruction of a to that of b.
        """
        bcm, seed = self._bcm, _seed(fields)
        a, b = (fields.picture(name, bcm.sample_shape) for name in ("a", "b"))
        frames = fields.integer("frames", 9, 2, MOST_FRAMES)
        label, guess_nfe = self._label_or_guess(fields, "label", a, seed)
        name_b = "label" if fields.label("label_b") is None else "label_b"
        label_b, guess_nfe_b = self._label_or_guess(fields, name_b, b, seed)
        up, down = self._there_and_back(fields)
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

    def _inpaint(self, fields: Fields) -> Answer:
        """Fields: picture, mask, label, schedule, seed. Returns picture, and the share that was filled in."""
        bcm, seed = self._bcm, _seed(fields)
        image = fields.picture("picture", bcm.sample_shape)
        holes = fields.mask("mask", *bcm.sample_shape[1:])
        label, text = self._label(fields), fields.text("schedule", "")
        program = bcm.schedule(text) if text else inpainting(bcm.sample_shape)
        filled, milliseconds = _timed(
            lambda: bcm.inpaint(image, holes, schedule=program, seed=seed, labels=label)
        )
        return {
            "picture": data_url(filled[0]),
            "filled": float(holes.mean()),
            "label": label,
            **_run(program, program.nfe, milliseconds),
        }

    def _there_and_back(self, fields: Fields) -> tuple[Schedule, Schedule]:
        """Return the schedules to noise and back to the image."""
        up = self._bcm.schedule(fields.text("inversion", "invert-2"))
        down = self._bcm.schedule(fields.text("schedule", "one-step"))
        return up, down

    def _label(self, fields: Fields) -> int | None:
        """Return the field `label` of a request without a complete picture. Raises LabelError for GUESS."""
        label = fields.label("label")
        refuse_guess(label, "label")
        return self._number(label)

    def _label_or_guess(
        self, fields: Fields, name: str, image: np.ndarray, seed: int
    ) -> tuple[int | None, int]:
        """Return a label, and how many network calls it took to guess it from an image [1, C, H, W]."""
        label = fields.label(name)
        if label != GUESS:
            return self._number(label), 0
        guessed = int(self._bcm.guess_labels(image, seed=seed)[0])
        return guessed, DRAWS * (self._bcm.num_classes or 0)

    def _number(self, label: int | str | None) -> int | None:
        """Return the number of a class that may be given by its name. Raises LabelError."""
        if label is None:
            check_labels(None, 1, self._bcm.num_classes, self._bcm.classes)
        if not isinstance(label, str):
            return label
        return label_of(label, self._bcm.num_classes, self._bcm.classes)


def _seed(fields: Fields) -> int:
    return fields.integer("seed", 0, 0, MOST_SEEDS)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns, and its duration in milliseconds."""
    started = time.perf_counter()
    values = work()
    return values, 1000 * (time.perf_counter() - started)


def _run(program: Schedule, nfe: int, milliseconds: float) -> Answer:
    return {"nfe": nfe, "milliseconds": milliseconds, "schedule": str(program)}
