"""Generate images with a bundle, invert them, and generate them again, with numpy and ONNX Runtime alone.

python round_trip.py BUNDLE FOLDER SEEDS [LABELS]      for example: digits.bundle out 7,8,9 3,1,4
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

START, INVERSION = 0, 2**32  # draws of a seed; 1, 2, … are injections


def standard_normal(draw):
    """Return float32 [N, C, H, W]. Row i depends on seeds[i] and draw alone."""
    size = np.prod(shape)
    generators = [np.random.Philox(key=np.array([seed, draw], np.uint64)) for seed in seeds]
    bits = np.stack([generator.random_raw(size + size % 2) for generator in generators])
    uniform, turns = np.split(((bits >> np.uint64(11)) + 0.5) * 2.0**-53, 2, axis=1)
    waves = np.concatenate([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
    z = np.tile(np.sqrt(-2 * np.log(uniform)), 2) * waves
    return z[:, :size].astype(np.float32).reshape(-1, *shape)


def play(schedule, x):
    """Return the state after a schedule such as "80>0.002 +0.1 0.1>1.2>0.002". Both float32 [N, C, H, W]."""
    noise, injections = np.zeros_like(x), 0
    for position, word in enumerate(schedule.split()):
        if word.startswith("+"):
            injections += position > 0
            noise = np.float32(word) * standard_normal(injections or INVERSION)
            continue
        for t, u in pairwise(map(np.float32, word.split(">"))):
            inputs = {"t": np.full(len(x), t), "u": np.full(len(x), u)}
            inputs |= {"label": labels} if labels is not None else {}
            inputs |= {"x": x, "noise": noise} if u > t else {"x": x + noise}
            x = np.asarray(graphs["inverse" if u > t else "forward"].run(["x_u"], inputs)[0])
            noise = np.zeros_like(x)
    return x


bundle, folder = map(Path, sys.argv[1:3])
seeds, *labels = [np.array(numbers.split(","), np.uint64) for numbers in sys.argv[3:]]
labels = labels[0].astype(np.int64) if labels else None
manifest = json.loads((bundle / "manifest.json").read_text())
shape, schedules = manifest["model"]["sample_shape"], manifest["schedules"]
graphs = {name: InferenceSession(bundle / file) for name, file in manifest["graphs"]["fp32"].items()}

images = play(schedules["mixture-4"], 80 * standard_normal(START)).clip(-1, 1)
latents = play(schedules["invert-2"], images) / 80
again = play(schedules["one-step"], 80 * latents).clip(-1, 1)
folder.mkdir(exist_ok=True)
np.savez(folder / "round_trip.npz", images=images, latents=latents, again=again)
pixels = np.rint((images + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)  # one below the other
header = f"P{6 if shape[0] == 3 else 5} {shape[2]} {len(images) * shape[1]} 255\n".encode()
(folder / "images.pnm").write_bytes(header + pixels.tobytes())
