"""A BCM beside its baselines: samples, inversions and latencies over network calls, as frozen values and pictures.

The baselines are Heun's method and DDIM (model/samplers.py) on an EDM denoiser. They start from the same noise, seed by seed, and are
given the same labels; their network is played by torch, the BCM by whatever backend it was opened on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..model.preconditioning import Denoiser
from ..model.samplers import Solver
from ..runtime.checks.benchmark import interleave, player
from ..runtime.pictures.writing import heat
from ..runtime.pipeline import BCM
from ..runtime.pixels import mean_squared_error, to_uint8
from ..runtime.schedule import DEFAULT_SCHEDULES, ONE_STEP, SIGMA_MAX, Schedule, parse_schedule
from .exhibits import Gallery
from .fidelity import psnr, ssim
from .quality import Judge, Scores

SOLVERS = (
    *(Solver("heun", n) for n in (2, 3, 5, 9, 18, 40)),
    *(Solver("ddim", n) for n in (1, 2, 3, 5, 10, 20, 35)),
)
TITLES = {"heun": "Heun", "ddim": "DDIM"}
SETS, APART = 3, 1_000_000  # sets of seeds, and the distance of their first ones
FEW = 10  # calls up to which baselines get all sets; above, one, as the time goes there
YARDSTICK = Solver("heun", 18)  # the claims rest on its spread, so it gets all sets too
SHOWN_BACK = (
    Solver("heun", 2),
    Solver("heun", 3),
    Solver("ddim", 2),
    Solver("ddim", 10),
)  # reconstructions in the picture
MOST_MOVES = 4  # of an inversion
MOST_CALLS = 100  # of a baseline up and down: more would take long and tell nothing of few
LATENCY_BATCH, LATENCY_SECONDS = 16, 0.6
COLUMNS = 10  # of a gallery

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sampled:
    """One sampler's images. family: "BCM", "Heun" or "DDIM"; program: its levels or steps; scores: one per set of seeds.

    agreement: share of the class asked for, None without classes; seconds: per image, in the batches that samples were made in.
    """

    family: str
    name: str
    program: str
    nfe: int
    scores: tuple[Scores, ...]
    agreement: float | None
    seconds: float

    def mean(self, figure: str) -> float:
        """Of a field of Scores over the sets of seeds."""
        return float(np.mean([getattr(score, figure) for score in self.scores]))

    @property
    def spread(self) -> float | None:
        """Standard error of the mean ratio over the sets of seeds; None for one set."""
        n = len(self.scores)
        return float(np.std([score.ratio for score in self.scores], ddof=1) / math.sqrt(n)) if n > 1 else None


@dataclass(frozen=True)
class Inverted:
    """Held-out images up to the noise and back. line: the way there and back that its number of calls is varied of.

    nfe: calls both ways; mse: as the authors define it; error: the standard error of its mean over the images; psnr: the median in dB;
    ssim: the mean; latent_mean, latent_std: in units of σ_max; seconds: per image, both ways.
    """

    line: str
    name: str
    program: str
    nfe: int
    mse: float
    error: float
    psnr: float
    ssim: float
    latent_mean: float
    latent_std: float
    seconds: float


@dataclass(frozen=True)
class Latency:
    """Median seconds per image of whole schedules played on a batch, and where the middle half of their runs lies."""

    name: str
    batch: int
    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Rivals:
    """What is compared: an opened BCM, a judge of its data, a denoiser (or none), and the first seed. say: told what is being measured."""

    bcm: BCM
    judge: Judge
    denoiser: Denoiser | None
    seed: int
    say: Say

    @property
    def baselines(self) -> list[tuple[Solver, Denoiser]]:
        """Every solver with the denoiser, if there is one."""
        return [(solver, self.denoiser) for solver in SOLVERS] if self.denoiser else []

    @property
    def generations(self) -> dict[str, Schedule]:
        """The bundle's schedules from noise to an image, by network calls."""
        found = {name: parse_schedule(text) for name, text in self.bcm.schedules.items()}
        return dict(
            sorted(((n, s) for n, s in found.items() if not s.from_image), key=lambda item: item[1].nfe)
        )

    @property
    def inversions(self) -> dict[str, Schedule]:
        """The bundle's schedules from an image to noise, and longer ones with levels inserted into its longest, by network calls."""
        found = {name: parse_schedule(text) for name, text in self.bcm.schedules.items()}
        named = {n: s for n, s in found.items() if s.from_image and s.end == SIGMA_MAX}
        named = named or {name: parse_schedule(DEFAULT_SCHEDULES[name]) for name in ("invert-1", "invert-2")}
        longest = max(named.values(), key=lambda s: s.nfe)
        while longest.nfe < MOST_MOVES:
            longest = with_level_inserted(longest)
            named[f"{longest.nfe} moves, levels inserted"] = longest
        return dict(sorted(named.items(), key=lambda item: item[1].nfe))

    @property
    def returns(self) -> dict[str, Schedule]:
        """Ways back from a latent: one call, and the bundle's two calls that add no noise, which a latent does not determine."""
        two = {name: s for name, s in self.generations.items() if s.nfe == len(s.steps) == 2}
        return {"one-step": ONE_STEP, **dict(list(two.items())[:1])}


def with_level_inserted(inversion: Schedule) -> Schedule:
    """One move more: the geometric mean of the two neighbouring levels that lie farthest apart, to three digits."""
    levels = [inversion.start, *(move.u for move in inversion.moves)]
    widest = max(range(inversion.nfe), key=lambda i: levels[i + 1] / levels[i])
    middle = float(f"{math.sqrt(levels[widest] * levels[widest + 1]):.3g}")
    levels.insert(widest + 1, middle)
    return parse_schedule(f"+{levels[0]!r} {'>'.join(map(repr, levels))}")


def sampled(rivals: Rivals) -> list[Sampled]:
    """Every generation schedule of the bundle, then every solver where there is a denoiser."""
    bcm, n, firsts = rivals.bcm, rivals.judge.samples, [rivals.seed + i * APART for i in range(SETS)]
    labels = rivals.judge.wanted if bcm.num_classes is not None else None
    bcm.generate(
        1, labels=None if labels is None else 0
    )  # opening the session is not part of the time per image
    rows = []
    for name, schedule in rivals.generations.items():
        make = partial(_by_schedule, bcm, schedule, n, labels)
        rows.append(_sampled(rivals, make, firsts, "BCM", name, str(schedule), schedule.nfe))
    for solver, denoiser in rivals.baselines:
        sets = firsts if solver.nfe <= FEW or solver == YARDSTICK else firsts[:1]
        make = partial(_by_solver, solver, denoiser, n, labels)
        rows.append(
            _sampled(rivals, make, sets, TITLES[solver.name], _title(solver), _steps(solver), solver.nfe)
        )
    return rows


def _by_schedule(bcm: BCM, schedule: Schedule, n: int, labels: np.ndarray | None, first: int) -> np.ndarray:
    return bcm.generate(n, schedule=schedule, seed=first, labels=labels)


def _by_solver(
    solver: Solver, denoiser: Denoiser, n: int, labels: np.ndarray | None, first: int
) -> np.ndarray:
    return solver.generate(denoiser, range(first, first + n), labels)


def _sampled(
    rivals: Rivals,
    make: Callable[[int], np.ndarray],
    firsts: Sequence[int],
    family: str,
    name: str,
    program: str,
    nfe: int,
) -> Sampled:
    judge, labelled = rivals.judge, rivals.bcm.num_classes is not None
    rivals.say(f"generation: {judge.samples} images × {len(firsts)}, {name} ({_calls(nfe)})")
    scores, agreements, seconds = [], [], []
    for first in firsts:
        started = time.perf_counter()
        images = make(first)
        seconds.append((time.perf_counter() - started) / len(images))
        scores.append(judge.scores(images))
        if labelled:
            agreements.append(judge.agreement(images))
    return Sampled(
        family,
        name,
        program,
        nfe,
        tuple(scores),
        float(np.mean(agreements)) if labelled else None,
        float(np.median(seconds)),
    )


def inverted(rivals: Rivals) -> list[Inverted]:
    """Every inversion with every way back, then every solver of up to MOST_CALLS both ways where there is a denoiser."""
    bcm, judge = rivals.bcm, rivals.judge
    labels = judge.original_labels if bcm.num_classes is not None else None
    bcm.invert(
        judge.originals[:1], labels=None if labels is None else labels[:1]
    )  # opening the session is not part of the time per image
    rows = []
    for name, up in rivals.inversions.items():
        for back, down in rivals.returns.items():
            rivals.say(
                f"inversion: {len(judge.originals)} held-out images, {name} and {back} ({_calls(up.nfe + down.nfe)})"
            )
            started = time.perf_counter()
            latents = bcm.invert(judge.originals, schedule=up, seed=rivals.seed, labels=labels)
            images = bcm.generate(latents=latents, schedule=down, seed=rivals.seed, labels=labels)
            seconds = time.perf_counter() - started
            nfe, line = up.nfe + down.nfe, f"BCM, {back} back"
            rows.append(
                _inverted(
                    judge.originals,
                    line,
                    f"{name}, {back}",
                    f"{up} then {down}",
                    nfe,
                    latents,
                    images,
                    seconds,
                )
            )
    for solver, denoiser in rivals.baselines:
        nfe = solver.inversion_nfe + solver.nfe
        if nfe > MOST_CALLS:
            continue
        rivals.say(f"inversion: {len(judge.originals)} held-out images, {_title(solver)} ({_calls(nfe)})")
        started = time.perf_counter()
        states = solver.invert(denoiser, judge.originals, labels)
        images = solver.regenerate(denoiser, states, labels)
        seconds, latents = time.perf_counter() - started, states / np.float32(SIGMA_MAX)
        title = TITLES[solver.name]
        rows.append(
            _inverted(
                judge.originals,
                title,
                _title(solver),
                f"{_steps(solver)} each way",
                nfe,
                latents,
                images,
                seconds,
            )
        )
    return rows


def _inverted(
    originals: np.ndarray,
    line: str,
    name: str,
    program: str,
    nfe: int,
    latents: np.ndarray,
    images: np.ndarray,
    seconds: float,
) -> Inverted:
    errors, n = mean_squared_error(images, originals), len(originals)
    fidelity = float(np.median(psnr(images, originals))), float(ssim(images, originals).mean())
    moments = float(latents.mean()), float(latents.std())
    return Inverted(
        line,
        name,
        program,
        nfe,
        float(errors.mean()),
        float(errors.std() / math.sqrt(n)),
        *fidelity,
        *moments,
        seconds / n,
    )


def latencies(rivals: Rivals) -> list[Latency]:
    """Of every named schedule of the bundle, on one image and on LATENCY_BATCH or what the backend takes; all take turns."""
    named = {name: parse_schedule(text) for name, text in rivals.bcm.schedules.items()}
    batches = sorted({1, min(LATENCY_BATCH, rivals.bcm.batch)})
    what = [
        (name, batch, player(rivals.bcm.backend, schedule, batch))
        for name, schedule in named.items()
        for batch in batches
    ]
    rivals.say(f"latency: {len(named)} schedules in turn, at batch {' and '.join(map(str, batches))}")
    for _, _, run in what:
        run()
    times = [
        np.percentile(np.concatenate(turns), [50, 25, 75])
        for turns in interleave([run for _, _, run in what], LATENCY_SECONDS)
    ]
    return [
        Latency(name, batch, *map(float, found / batch))
        for (name, batch, _), found in zip(what, times, strict=True)
    ]


def sample_gallery(rivals: Rivals) -> Gallery:
    """One row per schedule and per few-call solver: the same noise and label down each column."""
    bcm, seeds = rivals.bcm, range(rivals.seed, rivals.seed + COLUMNS)
    labels = None if bcm.num_classes is None else np.arange(COLUMNS) % bcm.num_classes
    rows = {
        f"BCM {name}, {_calls(schedule.nfe)}": bcm.generate(
            COLUMNS, schedule=schedule, seed=seeds, labels=labels
        )
        for name, schedule in rivals.generations.items()
    }
    for solver, denoiser in rivals.baselines:
        if solver.nfe <= 5 or solver == YARDSTICK:
            rows[f"{_title(solver)}, {_calls(solver.nfe)}"] = solver.generate(denoiser, seeds, labels)
    note = f"Seeds {seeds[0]} to {seeds[-1]}, nothing chosen: a column has one starting noise{'' if labels is None else ' and one label'}."
    return _gallery("Samples at equal noise", rows, note)


def reconstruction_gallery(rivals: Rivals) -> Gallery:
    """Held-out images, what comes back of them, and below it where it differs: a heat map, the same scale in all rows."""
    bcm, originals = rivals.bcm, rivals.judge.originals[:COLUMNS]
    given = rivals.judge.original_labels
    labels = None if bcm.num_classes is None or given is None else given[: len(originals)]
    back = {
        f"BCM {name}, one-step, {_calls(up.nfe + 1)}": bcm.reconstruct(
            originals, inversion=up, seed=rivals.seed, labels=labels
        )
        for name, up in rivals.inversions.items()
        if name in bcm.schedules
    }
    for solver, denoiser in rivals.baselines:
        if solver in SHOWN_BACK:
            images = solver.regenerate(denoiser, solver.invert(denoiser, originals, labels), labels)
            back[f"{_title(solver)}, {_calls(solver.nfe + solver.inversion_nfe)}"] = images
    differences = {
        name: np.abs(to_uint8(images) / 255 - to_uint8(originals) / 255).max(axis=1)
        for name, images in back.items()
    }
    ours = [difference for name, difference in differences.items() if name.startswith("BCM")]
    scale = max(float(np.max(ours)), 1 / 255)
    rows = {"held-out images": originals}
    for name, images in back.items():
        rows |= {name: images, f"difference, {name}": heat(differences[name][:, None] / scale)}
    note = f"The first {len(originals)} held-out images. Differences: black for none, white for {scale:.2f} of a pixel's range or more."
    return _gallery("Reconstructions and where they differ", rows, note)


def _gallery(title: str, rows: Mapping[str, np.ndarray], note: str) -> Gallery:
    """In colour where any row is."""
    channels = max(images.shape[1] for images in rows.values())
    images = [np.repeat(images, channels // images.shape[1], axis=1) for images in rows.values()]
    return Gallery(title, np.concatenate(images).clip(-1, 1), images[0].shape[0], list(rows), note)


def _title(solver: Solver) -> str:
    return f"{TITLES[solver.name]} {solver.steps}"


def _steps(solver: Solver) -> str:
    return f"{solver.steps} step{'' if solver.steps == 1 else 's'}"


def _calls(n: int) -> str:
    return f"{n} call{'' if n == 1 else 's'}"
