"""Architectures by name. What needs torchvision or timm runs where they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import ncut
from ncut.extract.named import is_named


def test_names_and_paths_are_distinguished(tmp_path: Path) -> None:
    assert is_named("torchvision:resnet18")
    assert is_named(Path("timm:resnet18"))
    assert not is_named("models/resnet18.pth")
    assert not is_named("other:resnet18")


def test_weights_are_never_downloaded() -> None:
    with pytest.raises(ncut.InputError, match=r"weights: name the file.*none is downloaded"):
        ncut.graph("torchvision:resnet18")


def test_weights_belong_to_names_only() -> None:
    with pytest.raises(ncut.InputError, match="weights: has no effect on"):
        ncut.graph([[[1.0]], [[1.0]]], weights="file.pth")


def test_file_that_is_missing() -> None:
    with pytest.raises(ncut.ModelError, match="no such file"):
        ncut.graph("torchvision:resnet18", weights="nowhere.pth")


def test_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ncut.MissingExtraError, match="vision"):
        ncut.graph("timm:resnet18", weights=tmp_path / "weights.pth")


def test_resnet_of_torchvision(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    vision = pytest.importorskip(
        "torchvision",
        reason="in an environment of its own: pip install torch torchvision, then "
        "pytest tests/extract/test_named.py",
        exc_type=ImportError,
    )
    torch.manual_seed(0)
    model = vision.models.resnet18(weights=None)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    graph = ncut.graph("torchvision:resnet18", weights=tmp_path / "weights.pth")
    expected = ncut.graph(model)
    assert graph.name == "torchvision:resnet18"
    assert (graph.adjacency != expected.adjacency).nnz == 0
    with pytest.raises(ncut.ModelError, match="not the weights of torchvision:vgg16"):
        ncut.graph("torchvision:vgg16", weights=tmp_path / "weights.pth")
    with pytest.raises(ncut.InputError, match="no architecture 'resnet1'"):
        ncut.graph("torchvision:resnet1", weights=tmp_path / "weights.pth")
