"""One batch size of benchmarks/gpu.py: each variant is prepared and measured, then all of them in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_limits import Budget, TooLong, within
from gpu_report import CHAINED
from gpu_results import COMPILED, EAGER, IN_TURN, TENSORRT, Chain, Measured, Results, Row
from gpu_variants import opened, run_of
from gpu_work import (
    distance,
    drawn,
    engine_launches,
    in_parts,
    inputs_of,
    matrix_product,
    product_tflops,
    say,
)
from networks import TorchPlayer


@dataclass
class Prepared:
    """A variant that is ready.

    runs: schedule → what plays it. errors: schedule → relative L2. run_s: schedule → seconds of one run.
    """

    player: Any
    runs: dict[str, Callable[[], Any]]
    errors: dict[str, float] = field(default_factory=dict)
    run_s: dict[str, float] = field(default_factory=dict)


class BatchMeasurement:
    """The measurement of one batch size on the GPU. Each figure is written to the results at once.

    state: the file of this batch size's Measured. When a variant has ended the process, the next process
    reads it, keeps its figures, and leaves out the variants that have a reason in `not_run`.
    """

    def __init__(
        self,
        bundle: Path,
        state: Path,
        results: Results,
        budget: Budget,
        schedules: Sequence[str],
        seconds: float,
        matrix: int,
        largest: int,
    ) -> None:
        from bcm_edge.export.restore import restored_model
        from bcm_edge.runtime.checks.operations import flop_per_call
        from bcm_edge.runtime.storage.bundle import open_bundle

        self._state, self._results, self._budget, self._seconds = state, results, budget, seconds
        self._record = Measured.read(state)
        self._bundle, self._largest = open_bundle(bundle), largest
        self._model = restored_model(self._bundle)
        flop = flop_per_call(self._bundle.graphs("fp32")["forward"])
        assert flop is not None  # onnx is installed
        self._flop = flop
        self._programs = {name: self._bundle.schedule(name) for name in schedules}
        self._inputs: dict[str, tuple[Any, ...]] = {}
        for name, program in self._programs.items():
            drawn(*inputs_of(program, 1, self._model.config))  # the first call imports modules
            self._inputs[name] = inputs_of(program, self._record.batch, self._model.config)
            started = time.perf_counter()
            drawn(*self._inputs[name])
            self._record.noise_ms[name] = 1e3 * (time.perf_counter() - started)
        self._truth = self._states_in_float32()
        self._size, self._product = matrix, matrix_product(matrix)
        self._product_ms: list[float] = []
        self._prepared: dict[str, Prepared] = {}
        self._stopped: str | None = None  # a variant that was stopped while it was prepared

    def run(self) -> None:
        """Measure each variant alone, then all in turn."""
        for variant in self._record.variants:
            if variant not in self._record.not_run:
                say(f"batch {self._record.batch}: {variant}")
                self._begin(variant)
                with self._reported(variant):
                    self._prepare(variant)
                    self._measure_alone(variant)
        self._measure_in_turn()
        self._begin(None)

    def _states_in_float32(self) -> dict[str, Any]:
        """Return schedule → its last state, computed by torch in float32."""
        import torch

        torch.backends.cudnn.allow_tf32 = False  # TF32 has a mantissa of 10 bits
        player = TorchPlayer(self._model, "cuda")
        states = {name: in_parts(player, *drawn(*own)) for name, own in self._inputs.items()}
        torch.cuda.empty_cache()
        torch.backends.cudnn.benchmark = True
        return states

    def _begin(self, work: str | None) -> None:
        self._record.doing = work
        self._save()

    def _save(self) -> None:
        self._record.write(self._state)
        self._results.put(self._record)

    @contextmanager
    def _reported(self, work: str) -> Iterator[None]:
        """Note why the block failed, and go on unless this process has lost the GPU."""
        import torch

        from bcm_edge.errors import BcmError
        from bcm_edge.runtime.wording import first_line

        try:
            yield
            return
        except TooLong:
            reason, self._stopped = self._budget.reason, work
        except BcmError as error:
            reason = first_line(error)
        except Exception as error:  # of any library
            reason = f"{type(error).__name__}: {first_line(error)}"
        self._record.not_run[work] = reason
        self._prepared.pop(work, None)  # frees its memory
        self._save()
        torch.cuda.synchronize()  # raises the error of a kernel that failed
        torch.cuda.empty_cache()

    def _prepare(self, variant: str) -> None:
        """Open a variant, compare its states with float32, and warm it up. Raises TooLong or BackendError."""
        from bcm_edge.errors import BackendError

        limit, started = self._budget.left() - self._reserve(variant), time.perf_counter()
        if limit <= 0:
            raise BackendError(self._budget.reason)
        with within(limit):
            player = opened(variant, self._bundle, self._model, self._largest)
            runs = {name: run_of(variant, player, own) for name, own in self._inputs.items()}
            ready = Prepared(player, runs)
            for name, run in runs.items():
                state = run()[-1]
                ready.errors[name] = distance(state, self._truth[name])
            self._record.ready_s[variant] = time.perf_counter() - started
            for name in 2 * list(self._inputs):  # torch.compile records its CUDA graph in a later call
                started = time.perf_counter()
                ready.runs[name]()
                ready.run_s[name] = time.perf_counter() - started
        self._prepared[variant] = ready

    def _reserve(self, variant: str) -> float:
        """Return the seconds that measuring a prepared variant takes, if it is as fast as eager."""
        eager = self._prepared[EAGER].run_s if EAGER in self._prepared else dict.fromkeys(self._programs, 0.0)
        reserve = sum(self._duration([eager[name]]) for name in self._programs)
        if variant == COMPILED:
            runs = [*(each.run_s for each in self._prepared.values()), eager]
            reserve += sum(self._duration([run_s[name] for run_s in runs]) for name in self._programs)
        return reserve

    def _duration(self, run_s: Sequence[float]) -> float:
        """Return how long benchmark.interleave takes for runs of these durations and the matrix product."""
        from bcm_edge.runtime.checks.benchmark import ROUNDS, TURN

        run_s = [*run_s, 0.0]
        return max(self._seconds * len(run_s), ROUNDS * sum(TURN + each for each in run_s))

    def _measure_alone(self, variant: str) -> None:
        """Measure each schedule of a variant, and each TensorRT engine, in turn with the matrix product."""
        ready = self._prepared[variant]
        for name, program in self._programs.items():
            if name in self._record.rows_of(variant):
                continue
            launches = []
            if variant == TENSORRT and program.nfe == CHAINED:
                launches = engine_launches(ready.player, *drawn(*self._inputs[name]))
            if self._has_time(variant, name, [ready.run_s[name]] * (1 + len(launches))):
                self._measure(name, {variant: ready}, launches)
        self._record.played[variant] = ready.player.device

    def _measure_in_turn(self) -> None:
        """Measure all variants in turn on each schedule. Replaces the figures of each variant alone."""
        ready = self._prepared
        if self._stopped:
            self._record.not_run[IN_TURN] = f"{self._stopped} was stopped and may still use the machine"
        elif len(ready) > 1:
            for name in self._programs:
                if self._has_time(IN_TURN, name, [each.run_s[name] for each in ready.values()]):
                    say(f"batch {self._record.batch}: {name}, {len(ready)} variants in turn")
                    self._begin(f"{IN_TURN}, {name}")
                    with self._reported(f"{IN_TURN}, {name}"):
                        self._measure(name, ready, [])

    def _has_time(self, work: str, schedule: str, run_s: Sequence[float]) -> bool:
        if self._duration(run_s) <= self._budget.left():
            return True
        self._record.not_run[f"{work}, {schedule}"] = self._budget.reason
        return False

    def _measure(self, schedule: str, variants: dict[str, Prepared], launches: Sequence[Any]) -> None:
        """Measure one schedule on these variants, the matrix product and TensorRT's launches, in turn."""
        from bcm_edge.runtime.checks.benchmark import interleave

        batch, nfe = self._record.batch, self._programs[schedule].nfe
        runs = [ready.runs[schedule] for ready in variants.values()]
        self._product.ms.clear()
        turns = interleave([*runs, self._product, *launches], self._seconds)
        self._product_ms += self._product.ms
        self._record.matmul_tflops = product_tflops(self._size, statistics.median(self._product_ms))
        matmul = product_tflops(self._size, statistics.median(self._product.ms))
        for (variant, ready), own in zip(variants.items(), turns, strict=False):
            error, in_turn = ready.errors[schedule], len(variants) > 1
            row = row_of(variant, schedule, batch, nfe, own, self._flop, matmul, error, in_turn)
            self._record.put(row)
            if launches:
                *engines_ms, device_ms = (statistics.median(launch.ms) for launch in launches)
                self._record.chain = Chain(row.p50_ms, device_ms, engines_ms)
        self._save()


def row_of(
    variant: str,
    schedule: str,
    batch: int,
    nfe: int,
    turns: list[list[float]],
    flop: int,
    matmul_tflops: float,
    relative_l2: float,
    in_turn: bool,
) -> Row:
    """The figures of one variant.

    turns: seconds of each run, turn by turn. flop: operations of one network call on one image.
    """
    from bcm_edge.runtime.backends.null import NullBackend
    from bcm_edge.runtime.checks.benchmark import summarise
    from bcm_edge.runtime.checks.starts import Start

    result = summarise(NullBackend((1, 1, 1)), batch, nfe, turns, Start(0, 0), flop, matmul_tflops * 1e3)
    assert result.gflops is not None and result.of_matmul is not None
    return Row(
        variant,
        schedule,
        result.runs,
        result.low_ms,
        result.high_ms,
        result.p50_ms,
        result.p90_ms,
        result.p99_ms,
        result.images_per_s,
        result.gflops / 1e3,
        result.of_matmul,
        relative_l2,
        in_turn,
    )
