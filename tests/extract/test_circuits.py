"""Weight-sparse GPTs in the layout of openai/circuit_sparsity: the graph of the module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import ncut
from ncut.errors import ModelError

torch = pytest.importorskip("torch", reason="pip install torch")
functional = torch.nn.functional

SETTINGS: dict[str, Any] = {
    "block_size": 8, "vocab_size": 13, "n_layer": 2, "n_head": 2, "d_head": 3, "d_model": 8,
    "d_mlp": 20, "bias": True, "ln_bias": True, "rms_norm": True, "activation_type": "gelu",
    "residual_activation_type": "identity", "tied_unembed": False, "flash": True, "sink": False,
}  # fmt: skip


class Attention(torch.nn.Module):
    def __init__(self, said: dict[str, Any], n_in: int) -> None:
        super().__init__()
        self.n_head, self.width = said["n_head"], said["n_head"] * said["d_head"]
        self.c_attn = torch.nn.Linear(n_in, 3 * self.width)
        self.c_proj = torch.nn.Linear(self.width, said["d_model"])

    def forward(self, x: Any) -> Any:
        batch, time, _ = x.shape
        parts = [part.view(batch, time, self.n_head, -1).transpose(1, 2)
                 for part in self.c_attn(x).split(self.width, dim=2)]  # fmt: skip
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).reshape(batch, time, self.width))


class Mlp(torch.nn.Module):
    def __init__(self, said: dict[str, Any], n_in: int) -> None:
        super().__init__()
        self.c_fc = torch.nn.Linear(n_in, said["d_mlp"])
        self.c_proj = torch.nn.Linear(said["d_mlp"], said["d_model"])
        self.act = functional.relu if said["activation_type"] == "relu" else functional.gelu

    def forward(self, x: Any) -> Any:
        return self.c_proj(self.act(self.c_fc(x)))


class Layer(torch.nn.Module):
    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__()
        norm = torch.nn.RMSNorm if said["rms_norm"] else torch.nn.LayerNorm
        width, places = said["d_model"], said.get("d_pos_emb") or 0
        self.ln_1, self.ln_2 = norm(width), norm(width)
        if places:
            self.ln_p1, self.ln_p2 = norm(places), norm(places)
        self.attn, self.mlp = Attention(said, width + places), Mlp(said, width + places)
        self.relu = said["residual_activation_type"] == "relu"

    def forward(self, x: Any, places: Any) -> Any:
        for number, inner in ((1, self.attn), (2, self.mlp)):
            read = getattr(self, f"ln_{number}")(x)
            if places is not None:
                beside = getattr(self, f"ln_p{number}")(places).expand(x.shape[0], -1, -1)
                read = torch.cat([read, beside], -1)
            x = x + inner(read)
            x = torch.relu(x) if self.relu else x
        return x


class Gpt(torch.nn.Module):
    """The network of the paper's repository, in other words."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__()
        self.said = said
        width = said["d_model"]
        norm = torch.nn.RMSNorm if said["rms_norm"] else torch.nn.LayerNorm
        self.transformer = torch.nn.ModuleDict({
            "wte": torch.nn.Embedding(said["vocab_size"], width),
            "wpe": torch.nn.Embedding(said["block_size"], said.get("d_pos_emb") or width),
            "h": torch.nn.ModuleList([Layer(said) for _ in range(said["n_layer"])]),
            "ln_f": norm(width),
        })  # fmt: skip
        self.lm_head = torch.nn.Linear(width, said["vocab_size"], bias=False)
        self.register_buffer("final_logits_bias", torch.zeros(said["vocab_size"]))
        if said.get("enable_bigram_table"):
            self.bigram_table = torch.nn.Parameter(torch.randn(13, 13))
        if said["tied_unembed"]:
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, ids: Any) -> Any:
        x = self.transformer["wte"](ids)
        places = self.transformer["wpe"].weight[: ids.shape[1]].unsqueeze(0)
        if not self.said.get("d_pos_emb"):
            x, places = x + places, None
        for layer in self.transformer["h"]:
            x = layer(x, places)
        logits = self.lm_head(self.transformer["ln_f"](x)) + self.final_logits_bias
        if self.said.get("enable_bigram_table"):
            logits = logits + functional.embedding(ids, self.bigram_table)
        return logits


def written(folder: Path, said: dict[str, Any], density: float = 0.3) -> Gpt:
    """A network with so many of its weights, and its folder."""
    torch.manual_seed(0)
    model = Gpt(SETTINGS | said).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(torch.rand_like(weight) < density)
            elif "ln_" in name:
                weight.add_(torch.rand_like(weight))
    settings = {key: value for key, value in (SETTINGS | said).items() if key != "n_mlp"}
    (folder / "beeg_config.json").write_text(json.dumps(settings))
    torch.save(model.state_dict(), folder / "final_model.pt")
    return model


IDS = torch.zeros(1, 4, dtype=torch.long)


@pytest.mark.parametrize("residual", ["readers", "stream"])
@pytest.mark.parametrize(
    "said",
    [{}, {"rms_norm": False, "activation_type": "relu"}, {"tied_unembed": True},
     {"residual_activation_type": "relu"}, {"d_pos_emb": 4}, {"enable_bigram_table": True}],
    ids=lambda said: "-".join(said) or "plain",
)  # fmt: skip
def test_the_folder_has_the_graph_of_the_module(
    said: dict[str, Any], residual: Any, tmp_path: Path
) -> None:
    model = written(tmp_path, said)
    graph = ncut.graph(tmp_path, residual=residual)
    expected = ncut.graph(model, example_inputs=IDS, residual=residual)
    assert [layer.size for layer in graph.layers] == [layer.size for layer in expected.layers]
    a, b = graph.adjacency.toarray(), expected.adjacency.toarray()
    np.testing.assert_allclose(a, b, rtol=1e-6)
    if "tied_unembed" not in said:  # the file has the words twice, the module once
        assert graph.placed_share == pytest.approx(expected.placed_share)
    assert not [item for item in graph.left_out if "no part of" in item.reason]


def test_the_module_moves_the_neurons_that_the_graph_joins(tmp_path: Path) -> None:
    model = written(tmp_path, {})
    check = ncut.graph(model, example_inputs=IDS, check=True).check
    assert check is not None
    assert check.agrees, str(check)


def test_choosing_the_largest_entries_joins_the_same_neurons(tmp_path: Path) -> None:
    written(tmp_path, {})
    plain = ncut.graph(tmp_path)
    places = "attn_in,attn_out,attn_q,attn_k,attn_v,mlp_in,mlp_neuron,mlp_out,resid_post_mlp"
    written(tmp_path, {"afrac": 0.25, "afrac_loctypes": places})
    chosen = ncut.graph(tmp_path)
    assert (plain.adjacency != chosen.adjacency).nnz == 0


def test_sparse_weights_stay_sparse(tmp_path: Path) -> None:
    model = written(tmp_path, {}, density=0.05)
    graph = ncut.graph(tmp_path)
    assert all(isinstance(block.weights, scipy.sparse.csr_array) for block in graph.blocks)
    state = {
        name: value.to_sparse() if value.ndim == 2 else value
        for name, value in model.state_dict().items()
    }
    torch.save(state, tmp_path / "final_model.pt")
    assert (ncut.graph(tmp_path).adjacency != graph.adjacency).nnz == 0
    hidden = ncut.graph(tmp_path, part="mlp")
    assert {block.name.rsplit(".", 1)[1] for block in hidden.blocks} == {"c_fc", "c_proj"}


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    written(tmp_path, {})
    state = torch.load(tmp_path / "final_model.pt", weights_only=True)
    torch.save({k: v for k, v in state.items() if "h.1.mlp" not in k}, tmp_path / "final_model.pt")
    with pytest.raises(ModelError, match=r"no tensor 'transformer\.h\.1\.mlp\.c_fc\.weight'"):
        ncut.graph(tmp_path)
    (tmp_path / "final_model.pt").unlink()
    with pytest.raises(ModelError, match=r"final_model\.pt"):
        ncut.graph(tmp_path)
    (tmp_path / "beeg_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"beeg_config\.json"):
        ncut.graph(tmp_path)


def test_a_scan_takes_the_folder_for_one_model(tmp_path: Path) -> None:
    from ncut.scans.sources import models_in

    (tmp_path / "a" / "b").mkdir(parents=True)
    written(tmp_path / "a" / "b", {})
    (tmp_path / "c.tflite").write_bytes(b"")
    assert sorted(models_in(tmp_path)) == [tmp_path / "a" / "b", tmp_path / "c.tflite"]
