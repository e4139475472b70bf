"""Whatever a file holds or a library raises, the error is ncut's and names the file."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ncut
from ncut.errors import MAX_MESSAGE, InputError, ModelError
from ncut.files import reading, regular_file
from ncut.files.guard import MAX_GROWTH, READ_WHOLE, SMALL, Budget, content_of

SUFFIXES = (".npz", ".pt", ".pth", ".safetensors", ".onnx", ".keras", ".h5", ".hdf5", ".npy")


def graph(path):
    return ncut.graph([path, path] if path.suffix == ".npy" else path)


class OddError(Exception):
    """An error of some library."""


# --- the guard ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OddError("odd"), OSError(5, "odd"), RecursionError("odd"), struct.error("odd")]
)
def test_unforeseen_errors_name_the_file_and_the_place(error, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, np.ones((4, 3)), np.ones((3, 2)))

    def load(*_, **__):
        raise error

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(ModelError, match=r"a\.npz: cannot be read as \.npz: .*odd") as caught:
        ncut.graph(path)
    assert f"({type(error).__name__} at extract/readers/files.py:" in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_errors_unrelated_to_the_file_pass(error, tmp_path):
    with pytest.raises(error), reading(tmp_path, "x"):
        raise error


def test_errors_of_ours_get_the_files_name_once(tmp_path):
    with pytest.raises(InputError, match=r"^a\.npz: layers: no such$"), reading("a.npz", "x"):
        raise InputError("layers: no such")
    with pytest.raises(ModelError, match=r"^in a\.npz$"), reading("a.npz", "x"):
        raise ModelError("in a.npz")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    with pytest.raises(ModelError, match="changed while it was read"), reading(path, "x"):
        path.write_bytes(b"other")

    def meet_what_comes_of_it():
        path.unlink()
        raise OddError

    with pytest.raises(ModelError, match="changed while it was read"), reading(path, "x"):
        meet_what_comes_of_it()
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ModelError, match="changed while it was read"), reading(folder, "x"):
        (folder / "shard").write_bytes(b"")
    with reading(folder, "x"):
        content_of(folder / "shard")


def test_a_file_cut_short_while_it_is_read_is_refused(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    from ncut.extract.readers import files

    path = tmp_path / "a.safetensors"
    save_file({"0.weight": np.ones((300, 200), "f4"), "2.weight": np.ones((9, 300), "f4")}, path)
    read = files.read_safetensors

    def cut(path):
        arrays = read(path)
        os.truncate(path, 4096)
        return arrays

    monkeypatch.setattr(files, "read_safetensors", cut)
    with pytest.raises(ModelError, match="changed while it was read"):
        ncut.graph(path)


def test_large_files_are_mapped_and_small_ones_are_read(tmp_path):
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(READ_WHOLE + 1)
    assert isinstance(content_of(path), np.memmap)
    os.truncate(path, 9)
    content = content_of(path)
    assert not isinstance(content, np.memmap)
    assert content.size == 9
    assert not content.flags.writeable


# --- invalid files ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pipes_and_devices_are_refused(suffix, tmp_path):
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"zero{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(ModelError, match=f"{path.name}.* is a pipe or a device"):
            graph(path)


def test_no_report_is_read_from_a_pipe_or_socket(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for read in (ncut.Report.from_json, ncut.Verdict.from_json):
        with pytest.raises(InputError, match="is a pipe"):
            read(tmp_path / "pipe.json")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.npz"))
        with pytest.raises(ModelError, match="is a pipe or a device"):
            ncut.graph(tmp_path / "s.npz")


@pytest.mark.parametrize("path", ["x" * 5000, "x" * 300 + ".npz", "a\0b.npz", "a\0b", "\udcff.npz"])
def test_names_that_no_file_can_have(path):
    for read in (ncut.graph, ncut.NeuronGraph.load, ncut.Report.from_json):
        with pytest.raises(ncut.NcutError):
            read(path)


def test_a_loop_of_links(tmp_path):
    (tmp_path / "a.npz").symlink_to("a.npz")
    with pytest.raises(ModelError, match="cannot be read: Too many levels of symbolic links"):
        regular_file(tmp_path / "a.npz")


def test_a_name_that_is_no_text_is_read_and_shown(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"net\xff.npz")
    with open(path, "wb") as file:
        np.savez(file, np.ones((5, 4)), np.ones((4, 3)))
    found = ncut.analyze(os.fsdecode(path), k=2, shuffles=1)
    assert found.model == "net?"
    found.to_html(tmp_path / "page.html")


# --- the budget ---------------------------------------------------------------------------------


def test_the_budget_is_a_hundred_times_the_file_and_sixteen_mebibytes(tmp_path):
    budget = Budget(tmp_path / "a.pt", 10)
    budget.take("all", MAX_GROWTH * 10 + SMALL)
    with pytest.raises(ModelError, match=r"a\.pt: one more would take 1 bytes, but the file st"):
        budget.take("one more", 1)


def header_of(descr, shape):
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        text, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return text.getvalue()


def test_archives_that_unpack_to_more_than_weights_do(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w0.npy", header_of("<f8", (5000, 1000)) + bytes(4 * 10**7))
        archive.writestr("w1.npy", header_of("<f8", (1000, 5)) + bytes(40000))
    with pytest.raises(ModelError, match="array 'w0' would take 40,000,128 bytes"):
        ncut.graph(path)


@pytest.mark.parametrize("where", ["w0.npy", "ncut_graph.npy"])
def test_headers_of_truncated_files_are_refused(where, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(where, header_of("<f8", (10**6, 10**6)) + bytes(80))
    name = where.removesuffix(".npy")
    for read in (ncut.graph, ncut.NeuronGraph.load):
        with pytest.raises(ModelError, match=rf"array '{name}' declares the shape"):
            read(path)


def test_a_pt_file_that_is_compressed_or_repeats_a_number(tmp_path):
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    path = tmp_path / "a.pt"
    state = {
        "0.weight": torch.ones(1).expand(6000, 6000),
        "2.weight": torch.ones(1).expand(5, 6000),
    }
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"tensor '0\.weight' would take 144,000,000 bytes"):
        ncut.graph(path)
    torch.save({"0.weight": torch.zeros(3000, 3000), "2.weight": torch.ones(5, 3000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="data/0' would take 36,000,000 bytes"):
        ncut.graph(path)


def test_onnx_tensors_that_all_lie_in_the_same_place(tmp_path):
    onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
    from onnx import TensorProto, helper

    n, many = 256, 180
    (tmp_path / "w.bin").write_bytes(np.ones((n, n), "f4").tobytes())
    tensors, nodes = [], []
    for number in range(many):
        tensor = TensorProto(name=f"w{number}", dims=[n, n], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        tensors.append(tensor)
        nodes.append(helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"h{number + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n])
        for name in ("h0", f"h{many}")
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)),
              tmp_path / "a.onnx")  # fmt: skip
    with pytest.raises(ModelError, match="what lies beside it would take"):
        ncut.graph(tmp_path / "a.onnx")


def saved(tmp_path, change):
    """A saved graph whose header was changed."""
    path = tmp_path / "g.npz"
    ncut.graph([np.ones((4, 3)), np.ones((3, 2))]).save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    header = json.loads(str(content["ncut_graph"]))
    change(header)
    np.savez(path, **{**content, "ncut_graph": np.array(json.dumps(header))})
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(name=7),
        lambda h: h.update(sums=["x"]),
        lambda h: h["layers"][0].__setitem__(0, None),
        lambda h: h["layers"].append(["far", 10**13]) or h["rescalable"].append(None)
        or h["read_by"].append([]),
        lambda h: h["blocks"][0].__setitem__(2, {}),
        lambda h: h["blocks"][0].__setitem__(0, False),
        lambda h: h["left_out"].append(["x", ["a"], "y"]),
        lambda h: h["left_out"].append(["x", [1], 3]),
        lambda h: h["parameters"].append(["x", [1.5], True, "weight"]),
        lambda h: h["ties"][0].__setitem__(0, 1),
    ],
)  # fmt: skip
def test_forged_headers_of_saved_graphs(change, tmp_path):
    with pytest.raises(ModelError, match=r"g\.npz: "):
        ncut.graph(saved(tmp_path, change))


# --- kinds of damage ----------------------------------------------------------------------------

FINE = "{'descr': '<f8', 'fortran_order': False, 'shape': (5, 4), }"


@pytest.mark.parametrize(
    "header",
    [
        *(FINE[:48], FINE.replace("(5, 4)", f"({10**30},)"), FINE.replace("(5, 4)", "(5.0, 4)")),
        *(FINE.replace("(5, 4)", "(None, 4)"), FINE.replace("'shape'", "'shape")),
        *(FINE.replace("(5, 4)", "(5 4$)"), FINE.replace("(5, 4)", f"({2**40}, {2**40})")),
        *(
            FINE.replace("(5, 4)", "(-5, -4)"),
            FINE.replace("<f8", "|O"),
            FINE.replace("<f8", "|S0"),
        ),
        *(FINE.replace("False", "'x'"), "[" * 5000, "\0" * 60),
    ],
)
def test_headers_of_npy_files(header, tmp_path):
    text = header.encode() + b" " * 20 + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(160))
    with pytest.raises(ncut.NcutError):
        ncut.graph([path, path])


def test_a_header_longer_than_the_file_is_not_allocated(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + FINE.encode() + bytes(160)
    )
    with pytest.raises(ModelError, match="says that its header has 4294967295 bytes"):
        ncut.graph([path, path])


def test_npy_files_are_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(5)
    first, second = (
        rng.normal(size=(7, 6)),
        np.asfortranarray(rng.normal(size=(6, 5))).astype(">f4"),
    )
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", second)
    found = ncut.graph([tmp_path / "a.npy", tmp_path / "b.npy"])
    for block, weights in zip(found.blocks, (first, second), strict=True):
        np.testing.assert_array_equal(block.weights, np.abs(np.load(io.BytesIO(_npy(weights)))))


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch: kinds that it is giving up
@pytest.mark.parametrize("kind", ["quantized", "per channel", "conjugate", "nested", "negative"])
def test_kinds_of_tensors(kind, tmp_path):
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    made = {
        "quantized": lambda: torch.quantize_per_tensor(weight, 0.1, 3, torch.quint8),
        "per channel": lambda: torch.quantize_per_channel(
            weight, torch.full((6,), 0.1), torch.zeros(6, dtype=torch.long), 0, torch.qint8
        ),
        "conjugate": lambda: (weight + 1j * weight).conj(),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)]),
        "negative": lambda: (weight + 1j * weight).conj().imag,
    }[kind]()
    state = {"0.weight": made, "2.weight": torch.ones(4, 6)}
    model = state
    if kind != "negative":  # torch itself saves none
        model = tmp_path / "a.pt"
        torch.save(state, model)
    if kind in ("conjugate", "nested"):
        with pytest.raises(InputError, match=r"a\.pt: 0: .*real numbers"):
            ncut.graph(model)
        return
    value = made.dequantize() if made.is_quantized else -weight
    found = ncut.graph(model).blocks[0].weights
    np.testing.assert_array_equal(found, np.abs(value.numpy().T))


def batch_norm(**arrays):
    rng = np.random.default_rng(0)
    ones = np.ones(6)
    return {
        "0.weight": rng.normal(size=(6, 5)),
        **{"1.weight": ones, "1.running_var": ones, "1.running_mean": ones, "1.bias": ones},
        "3.weight": rng.normal(size=(4, 6)),
        **arrays,
    }


@pytest.mark.parametrize(
    "arrays",
    [
        {"1.weight": np.ones((0, 3))},
        {"1.weight": np.ones(3)},
        {"1.weight": np.ones((6, 1)), "1.running_var": np.ones((6, 1))},
        {"1.weight": np.ones((1, 6)), "1.running_var": np.ones((1, 6))},
        {"1.running_var": np.array(1.0)},
    ],
)
def test_batch_norms_whose_arrays_do_not_fit(arrays, tmp_path):
    named = batch_norm(**arrays)
    with pytest.raises(ModelError, match="batch norm '1': its arrays have the shapes"):
        ncut.graph(named)
    np.savez(tmp_path / "a.npz", **named)
    with pytest.raises(ModelError, match=r"a\.npz: batch norm '1'"):
        ncut.graph(tmp_path / "a.npz")


def test_masks_that_do_not_fit():
    named = {"0.weight_orig": np.ones((4, 3)), "0.weight_mask": np.ones((3, 3)),
             "1.weight": np.ones((2, 4))}  # fmt: skip
    with pytest.raises(ModelError, match=r"'0': has weights of \(4, 3\) and a mask of \(3, 3\)"):
        ncut.graph(named)


def test_numbers_that_lie_at_odd_addresses_are_read(tmp_path):
    raw = bytearray(8 + 24 * 8)
    weights = np.frombuffer(raw, "<f8", count=24, offset=0).copy().reshape(6, 4)
    weights[:] = np.random.default_rng(2).normal(size=(6, 4))
    odd = np.frombuffer(b"\0" + weights.tobytes(), np.uint8)[1:].view("<f8").reshape(6, 4)
    assert not odd.flags.aligned
    assert ncut.graph([odd, np.ones((4, 2))]).degrees.tolist() == (
        ncut.graph([weights, np.ones((4, 2))]).degrees.tolist()
    )


# --- HDF5 ---------------------------------------------------------------------------------------


def test_hdf5_that_never_returns_is_given_up(tmp_path, monkeypatch):
    pytest.importorskip("h5py", reason="pip install 'ncut[keras]'")
    from ncut.extract.readers.keras import probe

    script = tmp_path / "endless.py"
    for name, content in {
        "hangs": "import sys, resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
        "while True: pass\n",
        "dies": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n",
        "waits": "import time; time.sleep(600)\n",
    }.items():
        script.write_text(content)
        monkeypatch.setattr(probe, "WALL_SECONDS", 2 if name == "waits" else 300)
        prober = probe.Prober()
        monkeypatch.setattr(probe, "__file__", str(script))
        assert not prober.ends(tmp_path / name), name
        monkeypatch.undo()
        assert prober.ends(tmp_path / "none.h5"), "a new process is started"
        prober.close()


STOPPED = """
import sys
from ncut.extract.readers.keras import probe
probe.WALL_SECONDS, probe.__file__ = 3, sys.argv[1]
print("ready", flush=True)
raise SystemExit(not probe.Prober().ends(probe.__file__))
"""


def test_time_while_all_is_stopped_is_not_waiting(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text("import sys, time; next(sys.stdin); time.sleep(0.5); print('done')\n")
    command = [sys.executable, "-c", STOPPED, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(3.2)
        os.killpg(process.pid, signal.SIGCONT)
    assert process.returncode == 0


def test_one_process_checks_all_files(tmp_path):
    h5py = pytest.importorskip("h5py", reason="pip install 'ncut[keras]'")
    from ncut.extract.readers.keras.probe import Prober

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (100, 100), "f4", chunks=(10, 10), compression="gzip")
        file["loop"] = file["/"]
        file["soft"] = h5py.SoftLink("/nowhere")
        file.attrs["names"] = ["a", "b"]
    prober = Prober()
    assert prober.ends(tmp_path / "a.h5")
    process = prober._process
    assert prober.ends(tmp_path / "a.h5")
    assert prober._process is process
    prober.close()
    assert process is not None
    assert process.poll() is not None


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ncut.InputError, ncut.ModelError, ncut.MissingExtraError])
def test_messages_carry_no_control_characters_and_end(kind):
    text = str(kind("\x1b[2J\x07\x9bred\u202e\nsecond line"))
    assert text == "?[2J??red?\nsecond line"
    long = str(kind("begin " + "x" * 10**5 + " end"))
    assert len(long) <= MAX_MESSAGE
    assert long.startswith("begin ")
    assert long.endswith(" end")


def test_tracebacks_carry_none_either(tmp_path):
    with pytest.raises(ModelError) as caught, reading(tmp_path, "x"):
        raise OddError("\x1b[2J")
    lines = "".join(traceback.format_exception(caught.value))
    assert "\x1b" not in lines
    assert "?[2J" in lines


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc: run on Linux")
def test_damaged_files_are_closed(tmp_path):
    def n_open():
        return len(os.listdir("/proc/self/fd"))

    contents = [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", bytes(100), b"\x93NUMPY\x01\x00"]
    paths = [tmp_path / f"{n}{s}" for n in range(len(contents)) for s in SUFFIXES]

    def read_all():
        for path in paths:
            path.write_bytes(contents[int(path.stem)])
            with pytest.raises(ncut.NcutError):
                graph(path)

    read_all()
    before = n_open()
    read_all()
    assert n_open() == before


def test_a_member_larger_than_its_archive_is_refused(tmp_path):
    """A header may claim more bytes than the file has, which zipfile would allocate."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", b"12345678")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 20
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    budget = Budget(path, len(data))
    with zipfile.ZipFile(path) as archive, pytest.raises(ModelError, match="by its header"):
        budget.member(archive, "data")


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".keras"])
def test_headers_that_claim_more_than_the_archive_are_refused(suffix, tmp_path):
    weights = {f"{n}.weight": np.ones((4, 4), "f4") for n in range(2)}
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, **weights)
    elif suffix == ".pt":
        torch = pytest.importorskip("torch", reason="pip install torch")
        torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, path)
    else:
        pytest.importorskip("h5py", reason="pip install h5py")
        shutil.copy(Path(__file__).parents[1] / "extract/keras_files/perceptron.keras", path)
    assert ncut.graph(path).n_edges
    content = bytearray(path.read_bytes())
    directory = content.find(b"PK\x01\x02")
    for at, message in ((20, "by its header, but the file stores"), (24, "would take")):
        claimed = content.copy()
        struct.pack_into("<I", claimed, directory + at, 0xF0000000)
        path.write_bytes(claimed)
        with pytest.raises(ModelError, match=message):
            ncut.graph(path)
