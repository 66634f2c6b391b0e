"""A picture from a running server, with Python and Pillow alone:  python client.py --seed 7 --label 3 -o three.png"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).with_name("triton.json")  # beside this file, in a repository
CHECK_SECONDS = 8.0  # after which a server that answers slowly counts as busy
NO_SCHEDULE = "none"  # which every model refuses before it computes anything


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", type=int, help="for models with classes")
    parser.add_argument("--schedule", help="a name, as mixture-4, or a text, as '80>2.4>0.002'")
    parser.add_argument(
        "--check",
        action="store_true",
        help="for probes: ask every process of the tasks whether it lives; 1 if one does not",
    )
    parser.add_argument("-o", "--output", default="image.png")
    given = parser.parse_args()
    try:
        if given.check:
            check(given.url)
            return
        pixels = ask(given.url, given.seed, given.label, given.schedule)
    except urllib.error.HTTPError as error:
        sys.exit(f"the server says: {error.read().decode()}")
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"no server at {given.url}: {error}")
    try:
        save(pixels, given.output)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{given.output} cannot be written: {error}")
    print(given.output)


def ask(url: str, seed: int, label: int | None, schedule: str | None) -> dict[str, Any]:
    """The output `pixels`: shape [1, C, H, W], data in one list."""
    values = {"seed": ("UINT64", seed), "label": ("INT64", label), "schedule": ("BYTES", schedule)}
    inputs = [
        _input(name, datatype, [1, 1], [value])
        for name, (datatype, value) in values.items()
        if value is not None
    ]
    return _post(url, "bcm_generate", {"inputs": inputs, "outputs": [{"name": "pixels"}]}, timeout=60)[
        "outputs"
    ][0]


def check(url: str) -> None:
    """Ask each task twice as often as it has processes for what it refuses at once; end with 1 if one of them is dead.

    A busy server is no dead one: refusals, full queues and slow answers count as life, and after some seconds the rest is let be.
    """
    told = json.loads(REPOSITORY.read_text())
    until = time.monotonic() + CHECK_SECONDS
    for model in told["tasks"]:
        request = _refused(url, model)
        for _ in range(2 * told["serving"]["instances"]):
            if time.monotonic() > until:
                return
            try:
                _post(url, model, request, timeout=CHECK_SECONDS / 2)
            except urllib.error.HTTPError as error:
                if "is not healthy" in (said := error.read().decode()):
                    sys.exit(f"{model}: {said}")
            except TimeoutError:
                continue


def save(pixels: dict[str, Any], path: str) -> None:
    from PIL import Image  # not needed for --check

    _, channels, height, width = pixels["shape"]
    planes = [bytes(pixels["data"][i * height * width : (i + 1) * height * width]) for i in range(channels)]
    grey = [Image.frombytes("L", (width, height), plane) for plane in planes]
    (grey[0] if channels == 1 else Image.merge("RGB", grey)).save(path)


def _refused(url: str, model: str) -> dict[str, Any]:
    """One sample of zeros with a schedule that is none; it waits a second for its turn at most."""
    with urllib.request.urlopen(f"{url}/v2/models/{model}/config", timeout=CHECK_SECONDS) as answer:
        needed = [tensor for tensor in json.load(answer)["input"] if not tensor["optional"]]
    inputs = [_input("schedule", "BYTES", [1, 1], [NO_SCHEDULE])]
    for tensor in needed:
        shape = [1, *map(int, tensor["dims"])]
        zero = False if tensor["data_type"] == "TYPE_BOOL" else 0
        inputs.append(
            _input(
                tensor["name"], tensor["data_type"].removeprefix("TYPE_"), shape, [zero] * math.prod(shape)
            )
        )
    return {"inputs": inputs, "parameters": {"timeout": 1_000_000}}


def _post(url: str, model: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    with urllib.request.urlopen(
        f"{url}/v2/models/{model}/infer", json.dumps(request).encode(), timeout=timeout
    ) as answer:
        return json.load(answer)


def _input(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


if __name__ == "__main__":
    main()
