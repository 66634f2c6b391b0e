"""A client of the public API, which `pyright --strict` checks. Its argument is the path of a bundle."""

import sys
import tempfile
from pathlib import Path

import numpy as np

import bcm_edge
from bcm_edge import BCM, BcmError, Images, Inject, Labels, Move, NetworkCall, OnMove, Schedule, Trace


def progress() -> tuple[OnMove, list[str]]:
    lines: list[str] = []

    def on_move(call: NetworkCall) -> None:
        rows = call.rows.stop - call.rows.start
        lines.append(f"{call.index + 1}/{call.total} {call.move} {rows} {call.state.dtype}")

    return on_move, lines


def edit(bcm: BCM, images: Images, labels: Labels, folder: Path) -> None:
    hole = np.zeros(bcm.sample_shape[1:], bool)
    hole[: len(hole) // 2] = True
    filled = bcm.inpaint(images, hole, labels=labels, output_type="pil")
    restored = bcm.restore(filled, strength=0.3, labels=labels)
    small = restored.reshape(len(restored), 1, 4, 2, 4, 2).mean(axis=(3, 5))
    bcm.save(bcm.upscale(small, labels=labels, output_type="uint8"), folder / "large.npz")
    frames = bcm.interpolate(filled[0], restored[0], frames=3, labels=3, output_type="pil")
    frames[0][0].save(folder / "frames.gif", save_all=True, append_images=frames[0][1:])
    bcm.save(frames, folder / "frames.png")
    near = bcm.variations(folder / "large.npz", 2, strength=0.2, labels="guess", seed=[7, 8])
    bcm.save(near, str(folder / "near.png"), force=True)


def main(bundle: str) -> None:
    on_move, lines = progress()
    with tempfile.TemporaryDirectory() as name, bcm_edge.load(bundle, value_range=(-1, 1)) as bcm:
        schedule: Schedule = bcm_edge.parse_schedule("80>2.4>0.002 +0.1 0.1>0.002")
        levels = [step.sigma if isinstance(step, Inject) else step.u for step in schedule.steps]
        moves: tuple[Move, ...] = schedule.moves
        images = bcm.generate(2, schedule=schedule, seed=1, labels="3,5", on_move=on_move)
        latents = bcm.invert(images, labels=bcm.guess_labels(images))
        again = bcm.generate(latents=latents, labels=[3, 5], output_type="uint8")
        pictures = bcm.reconstruct(again, labels=np.array([3, 5]), output_type="pil")
        edit(bcm, pictures, [3, 5], Path(name))
        first = bcm_edge.read_images(Path(name) / "frames.gif", size=(1, 8, 8))
        trace: Trace = bcm.trace("80>0.002", images=bcm.read_images(Path(name) / "large.npz"), labels=3)
        try:
            bcm.generate(labels=bcm.num_classes)
        except BcmError as error:
            lines.append(str(error))
        print(*lines, bcm, levels, len(moves), sep="\n")
        print(first.shape, trace.states.shape, trace.pictures().dtype, pictures[0].size)


if __name__ == "__main__":
    main(sys.argv[1])
