"""Networks of diffusers: real ones are saved by diffusers, read here, and must compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import relative_l2, weights_apart
from fixture_types import Cli
from PIL import Image

from bcm_edge.errors import CheckpointError
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.model.preconditioning import warp

diffusers = pytest.importorskip("diffusers")

# The layout of OpenAI's networks for ImageNet-64, smaller.
IMAGENET: dict[str, Any] = {
    "sample_size": 16,
    "layers_per_block": 2,
    "num_class_embeds": 5,
    "block_out_channels": [32, 64, 64],
    "attention_head_dim": 16,
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 32,
    "upsample_type": "resnet",
    "downsample_type": "resnet",
}
# That of their networks for LSUN-256.
LSUN = {
    **IMAGENET,
    "num_class_embeds": None,
    "resnet_time_scale_shift": "default",
    "attn_norm_num_groups": None,
}
# Convolutions that change the resolution, other groups, and grey images.
CONVOLUTIONS = {
    **LSUN,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "upsample_type": "conv",
    "downsample_type": "conv",
}
LEVELS = [80.0, 2.4, 0.5, 0.002]


def network(fields: dict[str, Any]) -> Any:
    """Return a UNet2DModel with random weights, which are large enough that every block matters."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**fields).eval().requires_grad_(False)
    for name, parameter in unet.named_parameters():
        if parameter.ndim > 1 and "class_embedding" not in name:
            gain = 1.5 if name.endswith(("to_q.weight", "to_k.weight")) else 1.0
            parameter.normal_(0.0, gain / parameter[0].numel() ** 0.5)
        else:
            is_scale = "norm" in name and name.endswith("weight")
            parameter.normal_(1.0 if is_scale else 0.0, 0.1)
    return unet


def saved(folder: Path, fields: dict[str, Any] | None = None, **options: Any) -> tuple[Path, Any]:
    """Write a pipeline as diffusers does. Return its folder and itself."""
    scheduler = diffusers.CMStochasticIterativeScheduler(**options.pop("scheduler", {}))
    pipeline = diffusers.ConsistencyModelPipeline(network(fields or IMAGENET), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, **options)
    return folder, pipeline


def inputs(unet: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return normal noise, one sample per level, and labels for a network with classes."""
    generator = torch.Generator().manual_seed(1)
    size, channels, classes = (
        unet.config[name] for name in ("sample_size", "in_channels", "num_class_embeds")
    )
    x = torch.randn(len(LEVELS), channels, size, size, generator=generator)
    return x, torch.arange(len(LEVELS)) if classes else None


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        (IMAGENET, {}),
        (LSUN, {"safe_serialization": False}),
        (CONVOLUTIONS, {"max_shard_size": "500KB"}),
    ],
    ids=["imagenet", "lsun-bin", "convolutions-shards"],
)
def test_network_computes_what_diffusers_computes(
    tmp_path: Path, fields: dict[str, Any], options: dict[str, Any]
):
    folder, pipeline = saved(tmp_path / "cd_small", fields, **options)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.name == "cd_small"
    assert checkpoint.untrained_inversion
    assert checkpoint.notes == ()
    assert checkpoint.config.attention == "dot_product"
    unet, model = pipeline.unet, checkpoint.model()
    x, labels = inputs(unet)
    tau = warp(torch.tensor(LEVELS))
    expected = unet(x, tau, class_labels=labels).sample
    assert relative_l2(model.network(x, tau, tau.flip(0), labels), expected) < 1e-5
    without_attention = {name: t for name, t in unet.state_dict().items() if ".to_out." in name}
    unet.load_state_dict({n: torch.zeros_like(t) for n, t in without_attention.items()}, strict=False)
    assert relative_l2(unet(x, tau, class_labels=labels).sample, expected) > 0.05  # attention matters


def test_function_differs_from_the_schedulers_only_in_its_c_skip(tmp_path: Path):
    """The root mean square of the difference of f(x, t) and f(x, t, 0.002) is at most 0.002."""
    folder, pipeline = saved(tmp_path / "cd")
    model, unet, scheduler = load_checkpoint(folder).model(), pipeline.unet, pipeline.scheduler
    z, labels = inputs(unet)
    t = torch.tensor(LEVELS)
    column = t[:, None, None, None]
    x = column * z
    lowest = torch.full_like(t, 0.002)
    ours = model(x, t, lowest, labels)
    c_skip, c_out = scheduler.get_scalings_for_boundary_condition(column)
    tau = torch.from_numpy(scheduler.sigma_to_t(t.numpy()))
    assert torch.allclose(tau.float(), warp(t))
    theirs = c_skip * x + c_out * unet(x / (column**2 + 0.25) ** 0.5, tau, class_labels=labels).sample
    own_c_skip = (0.002 * column + 0.25) / (column**2 + 0.25)
    assert relative_l2(ours + (c_skip - own_c_skip) * x, theirs) < 1e-4
    assert ((c_skip - own_c_skip) * column).abs().max() < 0.002
    assert torch.equal(ours[-1], x[-1])  # at 0.002 both are the identity
    assert torch.allclose(theirs[-1], x[-1])


def test_one_step_gives_the_images_of_the_pipeline(tmp_path: Path):
    folder, pipeline = saved(tmp_path / "cd")
    model = load_checkpoint(folder).model()
    latents, labels = inputs(pipeline.unet)
    assert labels is not None
    theirs = pipeline(len(latents), labels, latents=latents, output_type="pt").images
    t = torch.full((len(latents),), 80.0)
    ours = model(80 * latents, t, torch.full_like(t, 0.002), labels)
    assert theirs.std() > 0.1
    assert (theirs - (ours / 2 + 0.5).clamp(0, 1)).abs().max() < 0.01


def test_folder_or_file_of_the_network_alone_is_enough(tmp_path: Path):
    folder, _ = saved(tmp_path / "cd")
    whole = load_checkpoint(folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    for path, name in ((folder / "unet", "unet"), (file, file.name)):
        alone = load_checkpoint(path)
        assert (alone.name, alone.config) == (name, whole.config)
        assert all(torch.equal(alone.state_dict[name], tensor) for name, tensor in whole.state_dict.items())


def test_one_of_several_equal_weights_files_is_read(tmp_path: Path):
    folder, _ = saved(tmp_path / "cd")
    saved(folder, safe_serialization=False)
    saved(folder, variant="fp16")
    assert len(list((folder / "unet").glob("diffusion_pytorch_model*"))) == 3
    assert [file.name for file in load_checkpoint(folder).files] == [
        "diffusion_pytorch_model.safetensors",
        "config.json",
    ]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", {"_class_name": "DDPMPipeline"}, "only a ConsistencyModelPipeline can be read"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "only a UNet2DModel can be read"),
        (
            "unet/config.json",
            {"act_fn": "gelu"},
            "act_fn is 'gelu'; the network of a BCM can have only 'silu'",
        ),
        ("unet/config.json", {"norm_eps": 1e-6}, "norm_eps is 1e-06"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ("unet/config.json", {"center_input_sample": True}, "center_input_sample is True"),
        ("unet/config.json", {"flip_sin_to_cos": False}, "flip_sin_to_cos is False"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ("unet/config.json", {"down_block_types": ["SkipDownBlock2D"]}, "is 'SkipDownBlock2D'"),
        ("unet/config.json", {"down_block_types": None}, "down_block_types is None; .* can have a list of"),
        ("unet/config.json", {"attn_norm_num_groups": 16}, "attn_norm_num_groups is 16"),
        ("unet/config.json", {"attn_norm_num_groups": None}, "no attention without normalisation"),
        ("unet/config.json", {"attention_head_dim": None}, "num_head_channels must be a positive integer"),
        ("scheduler/scheduler_config.json", {"sigma_data": 1.0}, "sigma_data is 1.0; a BCM has 0.5"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_the_network_cannot_express_is_refused(
    tmp_path: Path, file: str, change: dict[str, Any], message: str
):
    folder, _ = saved(tmp_path / "cd")
    config = folder / file
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_incomplete_and_foreign_weights_are_refused(tmp_path: Path):
    folder, pipeline = saved(tmp_path / "cd")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="a folder without a weights file"):
        load_checkpoint(folder)
    file = folder / "unet" / "diffusion_pytorch_model.bin"
    weights = pipeline.unet.state_dict()
    torch.save({**weights, "down_blocks.0.other.0.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"not the weights of a UNet2DModel .*down_blocks.0.other.0"):
        load_checkpoint(folder)
    torch.save({name: tensor for name, tensor in weights.items() if "up_blocks.1" not in name}, file)
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    torch.save(pipeline.unet, file)  # a pickle that would run code
    with pytest.raises(CheckpointError, match=r"contains more than tensors.*nothing in it was executed"):
        load_checkpoint(folder)


def test_inspect_describes_a_pipeline(cli: Cli, tmp_path: Path):
    folder, _ = saved(tmp_path / "cd")
    for path in (folder, folder / "unet"):
        facts = json.loads(cli("inspect", path, "--json").stdout)
        assert (facts["kind"], facts["missing"]) == ("ict", [])
        values = {field["name"]: field["value"] for field in facts["fields"]}
        assert (values["image_size"], values["attention"]) == (16, "dot_product")
        assert values["attention_resolutions"] == [2, 4]
        played = cli("generate", path, "-n", 1, "-o", tmp_path / "x.png")
        assert played.exit_code == 2
        assert "(a model of diffusers)" in played.stderr and f"train --init {path}" in played.stderr


def test_pipeline_is_a_start_for_training(cli: Cli, tmp_path: Path):
    folder, _ = saved(tmp_path / "cd")
    refused = cli("export", folder, "-o", tmp_path / "cd.bundle")
    assert refused.exit_code == 2
    assert "Fine-tune it first: bcm-edge train --init" in " ".join(refused.stderr.split())
    for label in range(5):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for index in range(3):
            picture = Image.new("RGB", (16, 16), (50 * label, 80 * index, 128))
            picture.save(tmp_path / "photos" / str(label) / f"{index}.png")
    tuned = tmp_path / "tuned.safetensors"
    options = ("--init", folder, "--steps", 2, "--batch", 4, "-o", tuned)
    trained = cli("train", "--data", tmp_path / "photos", *options)
    assert trained.exit_code == 0, trained.stderr
    checkpoint = load_checkpoint(tuned)
    assert checkpoint.config == load_checkpoint(folder).config
    assert not checkpoint.untrained_inversion
    start = load_checkpoint(folder).state_dict
    tuned_weights = [checkpoint.state_dict[name] for name in start]
    assert 0 < weights_apart(tuned_weights, start.values()) < 0.05
    exported = cli("export", tuned, "-o", tmp_path / "tuned.bundle")
    assert exported.exit_code == 0, exported.stderr
