"""Folders of diffusers have the graph of the module that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ncut
from ncut.errors import ModelError
from ncut.extract.formats import format_of

torch = pytest.importorskip("torch", reason="pip install torch")
pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4}
UNET = {**SMALL, "sample_size": 8, "layers_per_block": 1, "attention_head_dim": 4}
TEXT = {
    **UNET, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 12,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
X = torch.zeros
ONE = X(1, dtype=torch.long)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "text": ("UNet2DConditionModel", TEXT, {
        "sample": X(1, 4, 8, 8), "timestep": ONE, "encoder_hidden_states": X(1, 5, 12)}),
    "xl": ("UNet2DConditionModel", {
        **TEXT, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 30}, {
        "sample": X(1, 4, 8, 8), "timestep": ONE, "encoder_hidden_states": X(1, 5, 12),
        "added_cond_kwargs": {"text_embeds": X(1, 6), "time_ids": X(1, 6)}}),
    "images": ("UNet2DModel", {
        **UNET, "in_channels": 3, "out_channels": 3,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}, {
        "sample": X(1, 3, 8, 8), "timestep": ONE}),
    "vae": ("AutoencoderKL", {
        **SMALL, "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2}, {"sample": X(1, 3, 8, 8)}),
    "dit": ("DiTTransformer2DModel", {
        "num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 4, "out_channels": 8,
        "num_layers": 2, "sample_size": 8, "norm_num_groups": 4, "num_embeds_ada_norm": 5}, {
        "hidden_states": X(1, 4, 8, 8), "timestep": ONE, "class_labels": ONE}),
}  # fmt: skip


@pytest.fixture(scope="module")
def diffusers() -> Any:
    """The package; its import takes seconds."""
    return pytest.importorskip("diffusers", reason="pip install diffusers")


@pytest.mark.parametrize("case", CASES)
def test_a_part_has_the_graph_of_its_module(case: str, diffusers: Any, tmp_path: Path) -> None:
    name, config, example = CASES[case]
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**config).eval()
    model.save_pretrained(tmp_path, variant="fp16" if case == "vae" else None)
    assert format_of(tmp_path).name == "a part of a diffusers pipeline"
    graph, expected = ncut.graph(tmp_path), ncut.graph(model, example_inputs=example)
    assert [layer.size for layer in graph.layers] == [layer.size for layer in expected.layers]
    assert abs(graph.adjacency - expected.adjacency).max() < 1e-6
    assert graph.placed_share == expected.placed_share == 1


@pytest.mark.usefixtures("diffusers")
def test_a_pipeline_and_unknown_parts_name_the_alternative(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="pipeline is not read; name the folder of one of its"):
        ncut.graph(tmp_path)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "os.system"}))
    with pytest.raises(ModelError, match=r"class 'os\.system' of diffusers is not known; known"):
        ncut.graph(tmp_path / "unet")
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(ModelError, match="cannot be loaded as AutoencoderKL"):
        ncut.graph(tmp_path / "unet")


@pytest.mark.parametrize("setting", ["attention_head_dim", "num_layers"])
def test_settings_of_a_larger_model_than_is_stored_are_refused(
    diffusers: Any, tmp_path: Path, setting: str
) -> None:
    name, config, _ = CASES["dit"]
    getattr(diffusers, name)(**config).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings[setting] = 2**60 if setting == "num_layers" else 2**20  # hundreds of gigabytes
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ncut.ModelError, match=r"by config\.json would take .* bytes, but the file"):
        ncut.graph(tmp_path)


def test_the_size_of_images_has_no_part_in_the_graph_nor_in_memory(
    diffusers: Any, tmp_path: Path
) -> None:
    name, config, _ = CASES["dit"]
    getattr(diffusers, name)(**config).save_pretrained(tmp_path)
    expected = ncut.graph(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["sample_size"] = 10**6  # terabytes of embedded positions
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert abs(ncut.graph(tmp_path).adjacency - expected.adjacency).max() == 0
