"""Training: from a data set to a checkpoint file, continuable after a kill with the same result.

Every random number of step k comes from (seed, k) alone, and the state file holds all else that a step depends on, so it does not
matter when a run was interrupted. The state is restored bit for bit; the result is the same up to rounding, since some processors add
in an order that depends on where tensors lie. The promise holds on the CPU, for one machine and one number of threads.
"""

from __future__ import annotations

import pickle
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BackendError, CheckpointError, InputError, NonFiniteError, OutputError
from ..model.checkpoint import Checkpoint, save_checkpoint
from ..model.config import NetworkConfig
from ..model.player import TorchBackend
from ..model.preconditioning import ConsistencyModel, Denoiser
from ..model.samplers import Solver
from ..runtime.batches import BATCH, Batch, play_in_parts
from ..runtime.chain import play
from ..runtime.pictures.writing import save_images
from ..runtime.pixels import ValueRange
from ..runtime.schedule import DEFAULT_SCHEDULES, ONE_STEP
from ..runtime.storage.files import check_free, replacing
from .data import load_dataset
from .dataset import Dataset, digest
from .denoising import Denoising, noised
from .networks import check_step, fitting, network_for, new_model
from .objective import Objective, draw, intervals_at

WARM_UP = 100  # steps over which the learning rate rises from 0
BETAS = (0.9, 0.99)
CLIP = 1.0  # largest norm of the gradient, which rises each time the grid doubles
EMA = 0.999
FIRST_INTERVALS = 10
SAVE_EVERY = 100  # steps between state files
SAMPLES = 100  # in the picture beside the checkpoint
SHEET_SOLVER = Solver("heun", 18)  # of a denoiser's picture; EDM's own choice for small images
OBJECTIVES = ("bcm", "edm")


@dataclass(frozen=True)
class TrainOptions:
    """What decides, with the data, which weights come out. objective: "bcm", or "edm" for the baseline, which has no intervals."""

    steps: int = 3000
    batch: int = 64
    learning_rate: float = 2e-3
    intervals: int = 160  # of the finest grid; more for longer runs, but 1280 in 500 steps fails
    channels: int = 32  # of the network at full resolution
    seed: int = 0
    objective: str = "bcm"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "channels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be in [0, 2**63), not {self.seed}")
        if self.channels % 8:
            raise InputError(f"channels must be a multiple of 8, not {self.channels}")
        if self.intervals < FIRST_INTERVALS:
            raise InputError(f"intervals must be at least {FIRST_INTERVALS}, not {self.intervals}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be positive, not {self.learning_rate}")


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` of `steps`; the losses, by name, are those of this step's batch."""

    step: int
    steps: int
    intervals: int | None  # of a BCM's grid
    losses: dict[str, float]
    seconds_left: float


OnProgress = Callable[[Progress], None]
Report = Callable[[str], None]


def train(
    data: str,
    output: Path,
    options: TrainOptions,
    on_progress: OnProgress | None = None,
    *,
    init: Checkpoint | None = None,
    image_size: int | None = None,
    value_range: ValueRange = None,
    report: Report = lambda line: None,
    device: str = "cpu",
    resume: bool = False,
    force: bool = False,
) -> Path:
    """Train on `data` (see load_dataset) and write `output`, a safetensors checkpoint in fp16, with samples beside it.

    init: a checkpoint of the same objective to fine-tune, for "bcm" also an iCT network with its identity initialisation; it decides the
    network, the size and colour of images and the numbers of classes. report: gets lines about the data before the first step.

    The state file `output` + ".state" lets a killed run go on with resume=True (even with force) and is removed at the end. Returns the
    path of the samples. Raises InputError of some kind before the first step if anything given cannot be used, NonFiniteError if
    training diverges.
    """
    pictures = output.with_suffix(".png")
    for file in (output, pictures):
        check_free(file, force)
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: a checkpoint is written as .safetensors")
    state = output.with_name(output.name + ".state")
    check_free(state, force=True)
    if state.exists() and not (resume or force):
        raise OutputError(f"{state} is of an unfinished run; --resume continues it, --force starts anew")
    if image_size and device == "cpu":
        check_step(options.batch, options.channels, image_size)  # before the images are read
    dataset = load_dataset(data, image_size, init.facts if init else None, value_range)
    config = fitting(init.config, dataset) if init else network_for(dataset, options.channels)
    for line in (*dataset.summary(config.num_classes), *(f"note: {note}" for note in dataset.notes)):
        report(line)
    trainer = fit(dataset, config, options, state, on_progress, init=init, device=device, resume=resume)
    checkpoint = trainer.checkpoint()
    if not all(tensor.isfinite().all() for tensor in checkpoint.state_dict.values()):
        raise NonFiniteError(
            "training diverged: NaN or infinity in the weights after the last step; use a lower learning rate"
        )
    save_checkpoint(
        output,
        trainer.average,
        config,
        checkpoint.schedules,
        checkpoint.provenance,
        classes=checkpoint.classes,
    )
    save_images(sample_sheet(checkpoint), pictures, force=True)
    state.unlink(missing_ok=True)
    return pictures


def fit(
    dataset: Dataset,
    config: NetworkConfig,
    options: TrainOptions,
    state: Path,
    on_progress: OnProgress | None = None,
    *,
    init: Checkpoint | None = None,
    device: str = "cpu",
    resume: bool = False,
) -> Trainer:
    """Run to the last step, writing the state file on the way; with `resume`, go on from it if it is there."""
    trainer = Trainer(dataset, config, options, device, init)
    if resume and state.exists():
        trainer.restore(state)
    began, first = time.monotonic(), trainer.done
    trainer.save(state)  # an output that cannot be written is found now, not after the first hundred steps
    while trainer.done < options.steps:
        intervals = trainer.intervals() if options.objective == "bcm" else None
        losses = trainer.step()
        if trainer.done % SAVE_EVERY == 0:
            trainer.save(state)
        if on_progress:
            left = (time.monotonic() - began) / (trainer.done - first) * (options.steps - trainer.done)
            on_progress(Progress(trainer.done, options.steps, intervals, losses, left))
    return trainer


def sample_sheet(checkpoint: Checkpoint) -> np.ndarray:
    """float32 [SAMPLES, C, H, W]: samples in the order of their classes, seeds 0 … SAMPLES - 1; a BCM's are made in one step."""
    classes = checkpoint.config.num_classes
    labels = None if classes is None else np.sort(np.arange(SAMPLES) % classes)
    if checkpoint.objective == "edm":
        return SHEET_SOLVER.generate(checkpoint.denoiser(), range(SAMPLES), labels)
    backend = TorchBackend(checkpoint.model())
    return play_in_parts(partial(play, ONE_STEP, backend), BATCH, Batch(range(SAMPLES), labels))


class Trainer:
    """The state of a run: parameters, their moving average, the optimiser's moments, and the number of steps done."""

    def __init__(
        self,
        dataset: Dataset,
        config: NetworkConfig,
        options: TrainOptions,
        device: str = "cpu",
        init: Checkpoint | None = None,
    ) -> None:
        if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
            raise BackendError(f"device {device!r}: torch finds no such device here; use cpu")
        if device == "cpu":
            check_step(options.batch, config.model_channels, config.image_size, config.patch_size)
        self.dataset, self.config, self.options, self.device, self.done = dataset, config, options, device, 0
        self.model = new_model(
            Denoiser if options.objective == "edm" else ConsistencyModel, config, options.seed
        )
        self.init = init
        if init:
            init.require(options.objective)
            self.model.network.load_state_dict(init.state_dict)
        self.model.to(device)
        self.first_intervals = (
            options.intervals if init else FIRST_INTERVALS
        )  # fine-tuning starts on the finest grid, as the authors do
        self.objective = Denoising(self.model) if isinstance(self.model, Denoiser) else Objective(self.model)
        self.parameters = list(self.model.network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.learning_rate, betas=BETAS, fused=True)
        self.average = {
            name: p.detach().clone(memory_format=torch.contiguous_format)
            for name, p in self.model.network.named_parameters()
        }

    def learning_rate(self) -> float:
        """Linear warm-up, then constant, then linear from half of the run down to 2 % at its end."""
        decay = min(1.0, 0.02 + 0.98 * 2 * (1 - self.done / self.options.steps))
        return self.options.learning_rate * decay * min(1.0, (self.done + 1) / WARM_UP)

    def intervals(self) -> int:
        return intervals_at(self.done, self.options.steps, self.first_intervals, self.options.intervals)

    def step(self) -> dict[str, float]:
        """One update. Returns the losses of its batch by name. Raises NonFiniteError."""
        seed = np.random.SeedSequence([self.options.seed, self.done]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
        chosen = torch.randint(len(self.dataset), (self.options.batch,), generator=generator)
        images = self.dataset.images[chosen].to(self.device)
        labels = None if self.dataset.labels is None else self.dataset.labels[chosen].to(self.device)
        losses = self._losses(images, labels, generator)
        values = {name: loss.item() for name, loss in losses.items()}
        if not np.isfinite(list(values.values())).all():
            said = ", ".join(f"{name} {value}" for name, value in values.items())
            raise NonFiniteError(f"training diverged at step {self.done} ({said}); use a lower learning rate")
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate()
        self.optimizer.step()
        decay = min(EMA, (1 + self.done) / (10 + self.done))
        for name, parameter in self.model.network.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - decay)
        self.done += 1
        return values

    def _losses(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(self.objective, Denoising):
            return self.objective(images, labels, noised(images.shape, generator).to(self.device))
        return self.objective(images, labels, draw(images.shape, self.intervals(), generator).to(self.device))

    def checkpoint(self) -> Checkpoint:
        """The averaged weights, rounded as a file rounds them, on the CPU."""
        weights = {name: tensor.half().float().cpu() for name, tensor in self.average.items()}
        schedules, provenance = (
            DEFAULT_SCHEDULES if self.options.objective == "bcm" else {},
            self.provenance(),
        )
        return Checkpoint(
            self.dataset.name,
            self.config,
            weights,
            schedules=schedules,
            provenance=provenance,
            classes=self.dataset.classes,
        )

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for one run to go on where another stopped."""
        start = None if self.init is None else digest(self.init.state_dict.values())
        options = asdict(self.options)
        if options["objective"] == "edm":
            del options["intervals"]  # it has no grid
        return {
            "objective": options.pop("objective"),
            **options,
            "network": self.config.to_json(),
            "data": self.dataset.digest,
            "init": start,
        }

    def provenance(self) -> dict[str, Any]:
        """What the checkpoint says about where it comes from."""
        return {
            "trained_on": self.dataset.name,
            "images": len(self.dataset),
            **self.fingerprint,
            "torch": torch.__version__,
        }

    def save(self, path: Path) -> None:
        """Write everything a later step depends on; the file is whole or as it was."""
        state = {
            "fingerprint": self.fingerprint,
            "done": self.done,
            "weights": self.model.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(path, force=True) as partial:
            torch.save(state, partial)

    def restore(self, path: Path) -> None:
        """Take over what `save` wrote. Raises CheckpointError if that was another run's or is damaged."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            theirs = {"objective": "bcm", **state["fingerprint"]}
            theirs["network"] = {"patch_size": 1, **theirs["network"]}  # older states name neither
            ours = self.fingerprint
        except (
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            RuntimeError,
            EOFError,
            OSError,
            KeyError,
            TypeError,
        ) as error:
            raise CheckpointError(
                f"{path}: not a state of a training run ({error}); train without --resume"
            ) from error
        for name in ours:
            if theirs.get(name) != ours[name]:
                raise CheckpointError(
                    f"{path}: of a run with other {name} ({theirs.get(name)}, now {ours[name]}); train without --resume"
                )
        self.model.network.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, tensor in self.average.items():
            tensor.copy_(state["average"][name])
        self.done = state["done"]
