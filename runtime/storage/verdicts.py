"""Verdicts: what a verification found, kept in the manifest and bound to the files it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Graphs of one precision on one backend, against one truth ("torch" or "fp32").

    needed: the largest relative L2 of all moves, that is, the bound that would have held; None if a move gave NaN or infinity.
    files: name → sha256 of the graphs and weights that were played, and of the engines that were built from them; of other files it
    says nothing.
    """

    precision: str
    backend: str
    against: str
    ok: bool
    bound: float
    needed: float | None
    schedules: list[str]
    batches: list[int]
    files: dict[str, str]

    @classmethod
    def from_json(cls, values: Any) -> Verdict:
        """Raises KeyError, TypeError or ValueError for anything malformed."""
        return cls(
            str(values["precision"]),
            str(values["backend"]),
            str(values["against"]),
            bool(values["ok"]),
            float(values["bound"]),
            None if values["needed"] is None else float(values["needed"]),
            [str(text) for text in values["schedules"]],
            [int(n) for n in values["batches"]],
            {str(name): str(digest) for name, digest in values["files"].items()},
        )

    @property
    def subject(self) -> tuple[object, ...]:
        """What it is about, whatever was found: of one subject a bundle keeps the latest verdict."""
        return self.precision, self.backend, self.against, frozenset(self.files)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        needed = "NaN or infinity" if self.needed is None else f"{self.needed:.1e}"
        outcome = "ok" if self.ok else "FAILED"
        return f"{self.precision} on {self.backend} against {self.against}: {needed}, bound {self.bound:.0e}: {outcome}"
