"""Verdicts: the results of verifications, stored in the manifest with the hashes of the verified files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """The result of comparing the graphs of one precision, on one backend, with a reference."""

    precision: str
    backend: str
    # The reference: "torch" or "fp32".
    against: str
    ok: bool
    # The largest relative L2 error that was allowed.
    bound: float
    # The largest relative L2 error of all moves, so the bound that would have been met.
    # None if a move produced NaN or infinity.
    needed: float | None
    # Texts of the schedules that were played.
    schedules: list[str]
    # Batch sizes that were played.
    batches: list[int]
    # File name → sha256 of the graphs and weights that were played, and of the engines built from them.
    # The verdict does not apply to other files.
    files: dict[str, str]

    @classmethod
    def from_json(cls, values: Any) -> Verdict:
        """Return the verdict from JSON values. Raises KeyError, TypeError or ValueError if malformed."""
        return cls(
            precision=str(values["precision"]),
            backend=str(values["backend"]),
            against=str(values["against"]),
            ok=bool(values["ok"]),
            bound=float(values["bound"]),
            needed=None if values["needed"] is None else float(values["needed"]),
            schedules=[str(text) for text in values["schedules"]],
            batches=[int(size) for size in values["batches"]],
            files={str(name): str(digest) for name, digest in values["files"].items()},
        )

    @property
    def subject(self) -> tuple[object, ...]:
        """What was verified, without the result. A bundle keeps only the latest verdict on each subject."""
        return self.precision, self.backend, self.against, frozenset(self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `from_json` reads them back."""
        return asdict(self)

    def __str__(self) -> str:
        needed = "NaN or infinity" if self.needed is None else f"{self.needed:.1e}"
        outcome = "ok" if self.ok else "FAILED"
        comparison = f"{self.precision} on {self.backend} against {self.against}"
        return f"{comparison}: {needed}, bound {self.bound:.0e}: {outcome}"
