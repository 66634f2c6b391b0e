"""Lines for people that describe a training run before its first step."""

from __future__ import annotations

import torch

from .trainer import Trainer


def summary(trainer: Trainer) -> list[str]:
    """Return lines about the network, the device, the steps, and the noise grid of a BCM."""
    options, images = trainer.options, len(trainer.dataset)
    parameters = sum(parameter.numel() for parameter in trainer.parameters)
    shown = options.batch * options.steps / images
    lines = [
        f"network: {parameters:,} parameters, {trainer.config.model_channels} channels",
        f"device: {_device(trainer)}",
        f"steps: {options.steps} of {options.batch} images; each image is shown about {shown:.3g} times",
    ]
    if trainer.execution.compile:
        lines.append("compiling the network: the first step takes minutes")
    return lines if options.objective == "edm" else [*lines, _grid(trainer), *_finer_than_before(trainer)]


def _device(trainer: Trainer) -> str:
    if trainer.device == "cpu":
        threads = torch.get_num_threads()
        name = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    else:
        name = f"{trainer.device} ({torch.cuda.get_device_name(trainer.device)})"
    execution = trainer.execution
    processes = [f"{execution.processes.count} processes"] if execution.processes.count > 1 else []
    in_parts = [f"each step in {execution.parts()} parts"] if execution.accumulate > 1 else []
    return ", ".join([name, *processes, trainer.options.precision, *in_parts])


def _finer_than_before(trainer: Trainer) -> list[str]:
    """Return a note if a BCM is fine-tuned on a finer grid than that of its training."""
    before = trainer.init.provenance.get("intervals") if trainer.init else None
    now = trainer.options.intervals
    if before is None or trainer.first_intervals < now or before >= now:
        return []
    return [
        f"note: the BCM to start from was trained with up to {before} intervals. With {now}, long moves learn"
        f" slowly, and samples may become worse; give --intervals {before}"
    ]


def _grid(trainer: Trainer) -> str:
    """Explain the grid of noise levels."""
    counts = [trainer.intervals_at(step) for step in range(trainer.options.steps)]
    first, last = counts[0], counts[-1]
    if first == last:
        return f"noise grid: {first} intervals in all steps"
    changes = [step + 1 for step in range(1, len(counts)) if counts[step] != counts[step - 1]]
    return (
        f"noise grid: {first} intervals, up to {last}; it becomes finer at the steps "
        f"{', '.join(map(str, changes))}. Losses of different grids cannot be compared"
    )
