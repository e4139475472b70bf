"""Files of weights: the kinds that are read, and that broken or hostile ones are refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ncut.errors import InputError, MissingExtraError, ModelError
from ncut.extract import read_graph

W0 = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], dtype=np.float32)
W1 = np.array([[-1.0], [2.0], [0.5]], dtype=np.float32)


def dense(graph, number):
    weights = graph.blocks[number].weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


def check(graph, names):
    assert [layer.name for layer in graph.layers] == ["input", *names]
    assert_array_equal(dense(graph, 0), np.abs(W0))
    assert_array_equal(dense(graph, 1), np.abs(W1))


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="pip install 'ncut[torch]'")


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_npz(tmp_path, as_path):
    path = tmp_path / "my.net.npz"
    np.savez(path, w0=W0, b0=np.ones(3), w1=W1, test_accuracy=np.float64(0.9))
    graph = read_graph(as_path(path))
    check(graph, ["w0", "w1"])
    assert graph.name == "my.net"
    assert graph.left_out == ()
    assert read_graph(path, name="other").name == "other"


def test_npz_of_positional_arrays(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", W0, W1)
    check(read_graph(tmp_path / "a.npz"), ["arr_0", "arr_1"])


def test_npz_that_holds_a_state_dict(tmp_path):
    np.savez(tmp_path / "a.npz", **{"fc1.weight": W0.T, "fc2.weight": W1.T})
    check(read_graph(tmp_path / "a.npz"), ["fc1", "fc2"])


def test_open_npz_is_a_mapping(tmp_path):
    np.savez(tmp_path / "a.npz", w0=W0, w1=W1)
    with np.load(tmp_path / "a.npz") as arrays:
        check(read_graph(arrays), ["w0", "w1"])


def test_saved_graph(tmp_path):
    graph = read_graph([W0, W1], name="saved")
    graph.save(tmp_path / "g.npz")
    again = read_graph(tmp_path / "g.npz")
    check(again, ["w0", "w1"])
    assert again.name == "saved"
    assert read_graph(tmp_path / "g.npz", name="new").name == "new"
    with pytest.raises(InputError, match=r"scope: has no effect on .*g.npz, a saved graph"):
        read_graph(tmp_path / "g.npz", scope="all")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PT"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_state_dict(tmp_path, torch, suffix, legacy):
    path = tmp_path / f"a{suffix}"
    state = {"fc1.weight": torch.tensor(W0.T), "fc1.bias": torch.ones(3)}
    state["fc2.weight"] = torch.tensor(W1.T).to(torch.bfloat16)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    check(read_graph(path), ["fc1", "fc2"])


def test_torch_checkpoint(tmp_path, torch):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(W0.T))
        model[2].weight.copy_(torch.tensor(W1.T))
    checkpoint = {"epoch": 1, "optimizer": optimizer.state_dict(), "state_dict": model.state_dict()}
    torch.save(checkpoint, tmp_path / "a.pt")
    check(read_graph(tmp_path / "a.pt"), ["0", "2"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_safetensors(tmp_path, torch, dtype):
    from safetensors.torch import save_file

    state = {
        "a.0.bias": torch.ones(5),
        "a.10.weight": torch.tensor(W1.T).to(getattr(torch, dtype)).contiguous(),
        "a.2.weight": torch.tensor(W0.T).to(getattr(torch, dtype)).contiguous(),
    }
    save_file(state, tmp_path / "a.safetensors")
    graph = read_graph(tmp_path / "a.safetensors")
    check(graph, ["a.2", "a.10"])
    assert dense(graph, 0).dtype.name == dtype


def test_safetensors_with_names_in_an_order_that_fits_by_chance(tmp_path):
    from safetensors.numpy import save_file

    weights = {f"w{number}": np.full((2, 2), number + 1.0) for number in range(11)}
    save_file(weights, tmp_path / "a.safetensors")  # the file holds w0, w1, w10, w2, ...
    graph = read_graph(tmp_path / "a.safetensors")
    assert [layer.name for layer in graph.layers] == ["input", *(f"w{n}" for n in range(11))]


def test_safetensors_with_eight_bit_floats(tmp_path, torch):
    from safetensors.torch import save_file

    weight = torch.ones(2, 2).to(torch.float8_e4m3fn)
    save_file({"a.weight": weight}, tmp_path / "a.safetensors")
    with pytest.raises(
        ModelError, match=r"a.safetensors: a has weights of type float8_e4m3fn.*quantized"
    ):
        read_graph(tmp_path / "a.safetensors")


def test_layers_of_a_file(tmp_path):
    np.savez(tmp_path / "a.npz", second=W1, first=W0, other=np.ones((7, 7)))
    check(read_graph(tmp_path / "a.npz", layers=["first", "second"]), ["first", "second"])
    with pytest.raises(InputError, match=r"layers: no 'third' in .*a\.npz; it has 'second'"):
        read_graph(tmp_path / "a.npz", layers=["first", "third"])


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("save", ["zip", "legacy", "plain"])
def test_pickle_that_runs_code_is_refused(tmp_path, torch, save):
    path, content = tmp_path / "a.pt", {"a.weight": Payload(tmp_path / "ran")}
    if save == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "zip")
    with pytest.raises(ModelError, match=r"a\.pt: "):
        read_graph(path)
    assert not (tmp_path / "ran").exists()


def test_npz_with_objects_is_refused(tmp_path):
    objects = np.array([Payload(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "a.npz", w0=W0, w1=objects)
    with pytest.raises(ModelError, match=r"a\.npz: array 'w1': holds pickled objects"):
        read_graph(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_pickled_module_is_refused(tmp_path, torch):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    torch.save(model, tmp_path / "a.pt")
    pattern = r"'torch\.nn\.modules\.container\.Sequential'.*pass the module.*state_dict\(\)"
    with pytest.raises(ModelError, match=pattern):
        read_graph(tmp_path / "a.pt")


def test_advice_to_load_unsafely_is_not_passed_on(tmp_path, torch):
    for content in ({"a": Payload(tmp_path / "ran")}, {"a": np.ones(3)}):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(ModelError, match="pickled object") as error:
            read_graph(tmp_path / "a.pt")
        assert "weights_only" not in str(error.value)


def test_torch_that_cannot_read_safely_is_refused(tmp_path, torch, monkeypatch):
    write_valid(tmp_path / "a.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ModelError, match=r"torch 2\.5\.1\+cpu cannot.*2\.6 or newer"):
        read_graph(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [[1, 2], 3])
def test_torch_file_without_a_state_dict(tmp_path, torch, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=f"holds a {type(content).__name__}; expected a state"):
        read_graph(tmp_path / "a.pt")


def test_file_that_is_missing_a_folder_or_of_another_kind(tmp_path):
    with pytest.raises(ModelError, match=r"a\.npz: no such file"):
        read_graph(tmp_path / "a.npz")
    with pytest.raises(ModelError, match="is a folder"):
        read_graph(tmp_path)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(
        ModelError, match=r"a\.txt: cannot read.*\.npz, \.pt, \.pth, .*\.safetensors"
    ):
        read_graph(str(tmp_path / "a.txt"))


def write_valid(path):
    if path.suffix == ".npz":
        np.savez(path, w0=W0, w1=W1)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"w0": W0, "w1": W1}, path)
    else:
        torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
        torch.save({"w0": torch.tensor(W0), "w1": torch.tensor(W1)}, path)


SUFFIXES = [".npz", ".pt", ".safetensors"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_valid(path)
    check(read_graph(path), ["w0", "w1"])
    content = path.read_bytes()
    for size in (0, 1, 9, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match=rf"a\{suffix}: "):
            read_graph(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_garbage(tmp_path, suffix):
    if suffix == ".pt":
        pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ModelError, match=rf"a\{suffix}: "):
        read_graph(path)


@pytest.mark.parametrize(("suffix", "really"), list(permutations(SUFFIXES, 2)))
def test_file_under_the_suffix_of_another_kind(tmp_path, suffix, really):
    if suffix == ".pt":
        pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    write_valid(tmp_path / f"a{really}")
    path = (tmp_path / f"a{really}").rename(tmp_path / f"b{suffix}")
    check(read_graph(path), ["w0", "w1"])


def test_corrupt_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w0=W0, w1=W1)
    content = bytearray(path.read_bytes())
    at = content.index(W0.tobytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.npz: array 'w0': cannot be read as \.npy: Bad CRC"):
        read_graph(path)


def test_corrupt_saved_graph(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, ncut_graph=np.array("{"))
    with pytest.raises(ModelError, match=r"a\.npz: "):
        read_graph(path)


@pytest.mark.parametrize("content", [b"junk\n", b"\x80\x02}.", b"(lp0\n.", bytes(300)])
def test_a_file_that_is_no_checkpoint_is_called_that(tmp_path, content):
    pytest.importorskip("torch", reason="pip install torch")
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"a\.pt: (not a file that torch.save|holds a dict|.*empty)"
    ):
        read_graph(tmp_path / "a.pt")


def test_torch_that_is_not_installed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"ncut\[torch\]"):
        read_graph(tmp_path / "a.pt")


def test_reading_arrays_does_not_import_torch(tmp_path):
    np.savez(tmp_path / "a.npz", w0=W0, w1=W1)
    code = (
        "import sys; from ncut.extract import read_graph; "
        f"read_graph({str(tmp_path / 'a.npz')!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_are_for_files_that_do_not_tell_how_they_are_connected(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="layers: has no effect on an ONNX model"):
        read_graph(tmp_path / "model.onnx", layers=["a", "b"])
    with pytest.raises(InputError, match="layers: has no effect on a folder"):
        read_graph(tmp_path, layers=["a", "b"])


def test_kinds_of_files_that_are_read_are_listed(tmp_path):
    (tmp_path / "model.xyz").write_bytes(b"")
    with pytest.raises(ModelError, match=r"known are \.npz.*\.onnx, \.keras, \.h5.* and folders"):
        read_graph(tmp_path / "model.xyz")


@pytest.mark.parametrize("name", ["epoch=3.ckpt", "pytorch_model.bin"])
def test_other_names_of_files_that_torch_writes(tmp_path, name):
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    state = {"net.0.weight": torch.rand(5, 6), "net.2.weight": torch.rand(4, 5)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / name)
    assert [layer.size for layer in read_graph(tmp_path / name).layers] == [6, 5, 4]
