"""A picture from a running server, with Python and Pillow alone:  python client.py --seed 7 --label 3 -o three.png"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any

BUSY = 503  # a queue that is full is no reason to restart a server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", type=int, help="for models with classes")
    parser.add_argument("--schedule", help="a name, as mixture-4, or a text, as '80>2.4>0.002'")
    parser.add_argument("--check", type=int, metavar="N", help="for probes: ask N times, write nothing, and end with 1 if an answer failed")
    parser.add_argument("-o", "--output", default="image.png")
    given = parser.parse_args()
    try:
        answers = [ask(given.url, given.seed, given.label, given.schedule) for _ in range(given.check or 1)]
    except urllib.error.HTTPError as error:
        if given.check and error.code == BUSY:
            return
        sys.exit(f"the server says: {error.read().decode()}")
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"no server at {given.url}: {error}")
    if not given.check:
        save(answers[0], given.output)
        print(given.output)


def ask(url: str, seed: int, label: int | None, schedule: str | None) -> dict[str, Any]:
    """The output `pixels`: shape [1, C, H, W], data in one list."""
    inputs = [_input("seed", "UINT64", seed)]
    inputs += [_input("label", "INT64", label)] if label is not None else []
    inputs += [_input("schedule", "BYTES", schedule)] if schedule else []
    request = json.dumps({"inputs": inputs, "outputs": [{"name": "pixels"}]}).encode()
    with urllib.request.urlopen(f"{url}/v2/models/bcm_generate/infer", request, timeout=40) as answer:
        return json.load(answer)["outputs"][0]


def save(pixels: dict[str, Any], path: str) -> None:
    from PIL import Image  # not needed for --check

    _, channels, height, width = pixels["shape"]
    planes = [bytes(pixels["data"][i * height * width : (i + 1) * height * width]) for i in range(channels)]
    grey = [Image.frombytes("L", (width, height), plane) for plane in planes]
    (grey[0] if channels == 1 else Image.merge("RGB", grey)).save(path)


def _input(name: str, datatype: str, value: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1, 1], "data": [value]}


if __name__ == "__main__":
    main()
