"""The networks that benchmarks run on: the shipped model, and the ImageNet-64 network with random weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def prepare(folder: Path, imagenet64: bool, precisions: str = "fp32") -> tuple[Path, str, Path]:
    """(checkpoint as the authors save it, its configuration as JSON, bundle in these precisions) of the network to measure."""
    code = """
import json, sys, torch
from pathlib import Path
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.preconditioning import ConsistencyModel
folder = Path(sys.argv[1])
if sys.argv[2] == "imagenet64":
    config = NetworkConfig(64, 3, 192, 3, 3, (4, 8), (1, 2, 3, 4), 1000, 64, resblock_updown=True, use_scale_shift_norm=False)
    checkpoint = Checkpoint("imagenet64.pt", config, ConsistencyModel(config).network.state_dict())
else:
    checkpoint = load_checkpoint(shipped_checkpoint())
torch.save(checkpoint.state_dict, folder / "checkpoint.pt")
export(ExportPlan(checkpoint, folder / "bundle", verify="none", precisions=tuple(sys.argv[3].split(","))), "0" * 64)
print(json.dumps(checkpoint.config.to_json()))
"""
    command = [sys.executable, "-c", code, str(folder), "imagenet64" if imagenet64 else "digits", precisions]
    config = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return folder / "checkpoint.pt", config, folder / "bundle"
