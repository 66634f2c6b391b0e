"""The state of a training run, one step at a time, with saving and restoring.

All random numbers of step k are derived from the seed and k, and the state file contains everything else that
a step depends on. So a run that was interrupted and resumed makes the same steps as one without interruption.
The state is restored exactly; the results agree up to rounding, because some processors add in an order that
depends on memory addresses. This holds on the CPU, for one machine and one number of threads.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, InputError, NonFiniteError
from ..model.checkpoint import Checkpoint
from ..model.config import NetworkConfig
from ..model.preconditioning import ConsistencyModel, Denoiser, Preconditioned
from ..runtime.schedule import DEFAULT_SCHEDULES
from .augmentation import augmented
from .dataset import Dataset, digest
from .denoising import Denoising, Noising, noised
from .execution import DEFAULT, Execution
from .networks import check_step, initial_weights, new_model, teacher_of
from .objective import Draw, Objective, draw, intervals_at
from .options import FIRST_INTERVALS, TrainOptions
from .state import Header, read_state, write_state

WARM_UP = 100  # steps in which the learning rate rises from 0
BETAS = (0.9, 0.99)  # betas of Adam
CLIP = 1.0  # largest norm of the gradient; it rises each time the number of intervals doubles
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's moving averages of the gradient and of its square
EMA = 0.999  # decay of the moving average of the weights


def objective_of(model: Preconditioned, teacher: Denoiser | None = None) -> Objective | Denoising:
    """Return the losses that train a model: those of a BCM, with or without a teacher, or of a denoiser."""
    if isinstance(model, Denoiser):
        return Denoising(model)
    return Objective(cast("ConsistencyModel", model), teacher)


class Trainer:
    """A training run: parameters, their moving average, the state of the optimizer, and the steps done.

    init: a checkpoint to start from, or None: one of the same objective, or a denoiser for "bcm".
    teacher: a denoiser of the same data whose flow the targets of a BCM follow (training/objective.py).

    Raises BackendError for an unknown device, CheckpointError for an `init` or `teacher` of another
    objective, and InputError if a step would not fit into memory, if the batch does not have equal parts, or
    if the teacher does not fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: NetworkConfig,
        options: TrainOptions,
        execution: Execution = DEFAULT,
        init: Checkpoint | None = None,
        teacher: Checkpoint | None = None,
    ) -> None:
        part = execution.part_of(options.batch)
        device = execution.torch_device()
        if device == "cpu":
            check_step(part, config.model_channels, config.image_size, config.patch_size)
        self.dataset = dataset
        self.config = config
        self.options = options
        self.execution = execution
        self.device = device
        self.init = init
        self.teacher = teacher
        self.done = 0
        self.extended: list[dict[str, int]] = []  # as in `Header`
        kind = Denoiser if options.objective == "edm" else ConsistencyModel
        self.model = new_model(kind, config, options.seed)
        if init:
            self.model.network.load_state_dict(initial_weights(init, options.objective))
        self.model.to(device)
        execution.prepare(self.model.network)
        # Like the authors, fine-tuning of a BCM starts with the finest grid.
        tuned = init is not None and init.objective == options.objective
        self.first_intervals = options.intervals if tuned else FIRST_INTERVALS
        self.objective = objective_of(self.model, self._teacher_network())
        self.parameters = list(self.model.network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.learning_rate, betas=BETAS, fused=True)
        for parameter in self.parameters:  # Adam would do this in its first step; `restore` needs it before
            moments = {name: torch.zeros_like(parameter) for name in MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=device), **moments}
        self.average = {
            name: parameter.detach().clone(memory_format=torch.contiguous_format)
            for name, parameter in self.model.network.named_parameters()
        }

    def _teacher_network(self) -> Denoiser | None:
        if self.teacher is None:
            return None
        if self.options.objective == "edm":
            raise InputError("a denoiser has no teacher; give one for the objective bcm")
        network = teacher_of(self.teacher, self.dataset).to(self.device)
        self.execution.prepare(network.network)
        return network

    def learning_rate(self) -> float:
        """Return the learning rate of the next step.

        It rises linearly in the first WARM_UP steps, and falls linearly in the second half to 2 % of its
        highest value.
        """
        decay = min(1.0, 0.02 + 0.98 * 2 * (1 - self.done / self.options.steps))
        return self.options.learning_rate * decay * min(1.0, (self.done + 1) / WARM_UP)

    def intervals(self) -> int:
        """Return the intervals of the grid of noise levels for the next step of a BCM."""
        return self.intervals_at(self.done)

    def intervals_at(self, step: int) -> int:
        """Return the intervals of the grid of noise levels for the step after `step` steps of a BCM."""
        return intervals_at(step, self.options.steps, self.first_intervals, self.options.intervals)

    def step(self) -> dict[str, float]:
        """Make one training step, and return the losses of its batch by name. Raises NonFiniteError."""
        generator = self._generator()
        chosen = torch.randint(len(self.dataset), (self.options.batch,), generator=generator)
        images = augmented(self.dataset.images[chosen], self.options.augment, generator)
        labels = None if self.dataset.labels is None else self.dataset.labels[chosen]
        at = self.random_numbers(images.shape, self.intervals(), generator)
        values = self._compute_gradients(images, labels, at)
        if not np.isfinite(list(values.values())).all():
            text = ", ".join(f"{name} {value}" for name, value in values.items())
            raise NonFiniteError(f"training diverged at step {self.done} ({text}); use a lower learning rate")
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate()
        self.optimizer.step()
        self._update_average()
        self.done += 1
        return values

    def checkpoint(self) -> Checkpoint:
        """Return the averaged weights on the CPU, rounded to float16 like in a checkpoint file."""
        return Checkpoint(
            name=self.dataset.name,
            config=self.config,
            state_dict={name: tensor.half().float().cpu() for name, tensor in self.average.items()},
            schedules=DEFAULT_SCHEDULES if self.options.objective == "bcm" else {},
            provenance=self.provenance(),
            classes=self.dataset.classes,
        )

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Return the settings that must be equal for a run to continue from a state file, as JSON values.

        The number of steps is not one of them, so that a run can be extended.
        """
        options = asdict(self.options)
        del options["steps"]
        if options["objective"] == "edm":
            del options["intervals"]  # there is no grid
        return {
            "objective": options.pop("objective"),
            **options,
            "augment": list(self.options.augment),  # JSON has no tuples
            "network": self.config.to_json(),
            "data": self.dataset.digest,
            "init": None if self.init is None else digest(self.init.state_dict.values()),
            "teacher": None if self.teacher is None else digest(self.teacher.state_dict.values()),
        }

    def provenance(self) -> dict[str, Any]:
        """Return what the checkpoint file records about the training."""
        return {
            "trained_on": self.dataset.name,
            "images": len(self.dataset),
            "steps": self.options.steps,
            **({"extended": self.extended} if self.extended else {}),
            **self.fingerprint,
            "channels": self.config.model_channels,  # with `init`, the option is not used
            "torch": torch.__version__,
        }

    def save(self, path: Path) -> None:
        """Write the state file, completely or not at all. Raises OutputError."""
        header = Header(self.done, self.options.steps, self.extended, self.fingerprint)
        write_state(path, header, self._tensors())

    def restore(self, path: Path) -> None:
        """Restore the state from a file of `save`.

        If it is the state of a run with another number of steps, the run continues with the number of this
        one: the learning rate and the grid of the next step are those of `done` steps out of the new number.

        Raises CheckpointError if the file is damaged, belongs to a run with other options or data, or if more
        steps were done than this run has.
        """
        header, saved = read_state(path)
        self._check_same_run(header, path)
        tensors = self._tensors()
        shapes, needed = ({name: t.shape for name, t in group.items()} for group in (saved, tensors))
        if shapes != needed:
            raise CheckpointError(f"{path}: does not contain the tensors of this network")
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
        for parameter in self.parameters:
            self.optimizer.state[parameter]["step"].fill_(header.done)
        self.done, self.extended = header.done, list(header.extended)
        if self.options.steps != header.steps:
            self.extended.append({"after": header.done, "steps": header.steps})

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the state, by their names in a state file. They are not copied."""
        names = dict(self.model.network.named_parameters())
        tensors = {f"weights/{name}": parameter.detach() for name, parameter in names.items()}
        tensors |= {f"average/{name}": self.average[name] for name in names}
        for moment in MOMENTS:
            tensors |= {f"{moment}/{name}": self.optimizer.state[names[name]][moment] for name in names}
        return tensors

    def _check_same_run(self, header: Header, path: Path) -> None:
        """Raise CheckpointError unless a state file belongs to a run that this one can continue."""
        if differences := header.differences(self.fingerprint):
            raise CheckpointError(
                f"{path}: the saved run differs from this one in {', '.join(differences)}; continue it with "
                "the options and data of its start, or start a new run with --force in place of --resume"
            )
        header.check_steps(self.options.steps, path)

    def _generator(self) -> torch.Generator:
        """Return the random number generator of the next step."""
        seed = np.random.SeedSequence([self.options.seed, self.done]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def random_numbers(self, shape: torch.Size, intervals: int, generator: torch.Generator) -> Draw | Noising:
        """Draw the random numbers of the objective for a batch [N, C, H, W]. A denoiser has no intervals."""
        if self.options.objective == "edm":
            return noised(shape, generator)
        return draw(shape, intervals, generator)

    def losses(
        self, images: Tensor, labels: Tensor | None, at: Draw | Noising, objective: Any
    ) -> dict[str, Tensor]:
        """Return the losses of an objective by name, in the precision of the run, for tensors on the CPU."""
        labels = None if labels is None else labels.to(self.device)
        with torch.autocast(
            torch.device(self.device).type,
            torch.bfloat16,
            enabled=self.options.precision == "bf16",
            cache_enabled=False,  # it would hold casts of weights from the target, which has no gradient
        ):
            return objective(images.to(self.device), labels, at.to(self.device))

    def _compute_gradients(
        self, images: Tensor, labels: Tensor | None, at: Draw | Noising
    ) -> dict[str, float]:
        """Set the gradients of the batch, and return its losses.

        Every parts-th image is in the same part, so that its first half is in the first half of the batch,
        for which the soft term is computed. Of P processes, process i computes the parts i, i + P, …
        """
        self.optimizer.zero_grad()
        parts, processes = self.execution.parts(), self.execution.processes
        values: dict[str, Tensor] = {}
        for part in range(processes.index, parts, processes.count):
            rows = slice(part, None, parts)
            part_labels = None if labels is None else labels[rows]
            losses = self.losses(images[rows], part_labels, at.of(rows), self.objective)
            (torch.stack(list(losses.values())).sum() / parts).backward()
            for name, loss in losses.items():
                values[name] = values.get(name, 0.0) + loss.detach() / parts
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        means = torch.stack(list(values.values()))
        processes.sum_up([*gradients, means])
        return dict(zip(values, means.tolist(), strict=True))

    def _update_average(self) -> None:
        decay = min(EMA, (1 + self.done) / (10 + self.done))
        for name, parameter in self.model.network.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - decay)
