"""The bundle: a folder with graphs, weights, schedules and a self-test, described by manifest.json.

    manifest.json        schema version, facts about the model, graphs, schedules, provenance;
                         size and sha256 of every other file
    forward.onnx         the graph of moves towards the image
    inverse.onnx         the graph of moves towards noise
    weights.bin          the weights of both graphs
    forward.fp16.onnx …  the same in another precision: two graphs and one file of weights each
    golden.npz           seeds, labels and schedules, and the states that the torch model computed for them
    calibration.json     ranges of activations, from which the 8-bit graphs were made

The same in one file is a packed bundle (packed.py); its files are unpacked to the cache folder.

`open_bundle` checks schema, paths, sizes and hashes before any library parses a file. A bundle may contain
other files as well (engines, reports); they are not listed in the manifest.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import BundleError, ScheduleError
from ..schedule import Schedule, parse_schedule
from .bundle_files import check_external_data, check_file, inside, manifest_text, weight_files
from .hashes import sha256
from .manifest import MADE_FROM, MANIFEST, PRECISIONS, FileFacts, Manifest, parse_manifest
from .packed import is_packed
from .shipped import located, shipped_name
from .unpacking import unpacked_copy
from .user_paths import refuse_url
from .verdicts import Verdict


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against its manifest. `open_bundle` returns it."""

    # The folder with the files.
    path: Path
    manifest: Manifest
    # The packed bundle from which the files were unpacked; None if the folder itself was opened.
    packed: Path | None = None

    @property
    def source(self) -> Path:
        """The path that was opened, for messages: the packed bundle or the folder."""
        return self.packed or self.path

    @property
    def precisions(self) -> list[str]:
        """The precisions of the bundle's graphs, the most exact first."""
        return [precision for precision in PRECISIONS if precision in self.manifest.graphs]

    def graphs(self, precision: str) -> dict[str, Path]:
        """Return direction → graph file. Raises BundleError if the bundle has no graphs of this precision."""
        pair = self.manifest.graphs.get(precision)
        if pair is None:
            present = ",".join(self.precisions)
            option = f"--precision {present},{precision}"
            if name := shipped_name(self.path):
                subject, advice = name, f"make a bundle: bcm-edge export {name} {option} -o {name}.bundle"
            elif self.packed is None and set(MADE_FROM.get(precision, (precision,))) <= set(self.precisions):
                subject = str(self.source)
                advice = f"add them: bcm-edge calibrate {shlex.quote(subject)} --precision {precision}"
            else:
                subject, advice = str(self.source), f"export with {option}"
            raise BundleError(f"{subject}: has no {precision} graphs (it has {present}); {advice}")
        return {direction: self.path / name for direction, name in pair.items()}

    def hashes(self, precision: str) -> dict[str, str]:
        """Return file name → sha256 of the graphs of a precision and of the weights that they load.

        Raises BundleError if the bundle has no graphs of this precision.
        """
        self.graphs(precision)
        names = set(self.manifest.graphs[precision].values())
        for graph in list(names):
            names |= weight_files(self.path, graph)
        return {name: self.manifest.files[name].sha256 for name in sorted(names)}

    def fingerprint(self, precision: str) -> str:
        """Return the sha256 of the names and hashes of the files that compute images in a precision.

        Raises BundleError if the bundle has no graphs of this precision.
        """
        lines = [f"{digest}  {name}\n" for name, digest in self.hashes(precision).items()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts of the manifest that apply to the files as they are now, engines included."""
        return [
            verdict
            for verdict in self.manifest.verdicts
            if verdict.precision in self.manifest.graphs and self._applies(verdict)
        ]

    def _applies(self, verdict: Verdict) -> bool:
        """Return whether the files that a verdict is about are unchanged."""
        graphs = self.hashes(verdict.precision)
        if not graphs.items() <= verdict.files.items():
            return False
        engines = {name: digest for name, digest in verdict.files.items() if name not in graphs}
        return all(self._has(name, digest) for name, digest in engines.items())

    def _has(self, name: str, digest: str) -> bool:
        """Return whether the bundle has a file with this sha256 that the manifest does not list."""
        try:
            file = inside(self.path, name)
            is_own = file.is_file() and file.resolve() == self.path.resolve() / name
            return is_own and sha256(file) == digest
        except (OSError, ValueError, BundleError):
            return False

    def schedule(self, name_or_text: str) -> Schedule:
        """Return a schedule by its name in this bundle, or by its text. Raises ScheduleError."""
        if name_or_text in self.manifest.schedules:
            return parse_schedule(self.manifest.schedules[name_or_text])
        if not name_or_text.strip():
            raise ScheduleError("the schedule is empty; give a name or levels, such as '80>2.4>0.002'")
        if not any(sign in name_or_text for sign in ">+"):
            names = ", ".join(self.manifest.schedules)
            raise ScheduleError(
                f"no schedule {name_or_text!r} in this bundle; give one of the names {names}, "
                "or levels in quotes, such as '80>2.4>0.002'"
            )
        return parse_schedule(name_or_text)


def open_bundle(path: Path | str) -> Bundle:
    """Return the bundle in a folder, in a packed file (*.bcm), or of a shipped model, by its name.

    Every file of the manifest is checked. Raises BundleError, which names the file and what is wrong with it.
    """
    path = located(path)
    refuse_url(path, BundleError)
    if not is_packed(path):
        return _open_folder(path)
    folder = unpacked_copy(path)
    try:
        return replace(_open_folder(folder), packed=path)
    except BundleError:  # the copy has been damaged
        folder = unpacked_copy(path, again=True)
    try:
        return replace(_open_folder(folder), packed=path)
    except BundleError as error:  # the packed bundle contains what a bundle may not contain
        raise BundleError(str(error).replace(str(folder), str(path))) from error


def _open_folder(path: Path) -> Bundle:
    manifest = read_manifest(path)
    for name, facts in manifest.files.items():
        try:
            check_file(path, name, facts)
        except (OSError, ValueError) as error:  # an invalid file name, or a file that cannot be read
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"{path}: {name!r} cannot be read ({reason})") from error
    for graph in {name for pair in manifest.graphs.values() for name in pair.values()}:
        check_external_data(path, graph, set(manifest.files))
    return Bundle(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the bundle in a folder. Its files are not checked. Raises BundleError."""
    try:
        text = manifest_text(path)
    except OSError as error:  # a path that is too long, or a folder without read permission
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_manifest(text, path, str(path / MANIFEST))


def describe_files(folder: Path) -> dict[str, FileFacts]:
    """Return the size and sha256 of every file in a folder, for the manifest of a new bundle."""
    return {file.name: FileFacts(file.stat().st_size, sha256(file)) for file in sorted(folder.iterdir())}
