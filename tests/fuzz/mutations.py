"""Damage: to bytes, JSON, members of archives with right checksums, and what formats are of."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

INTEGERS = (
    *(0, 1, 2, 3, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -(2**31), -(2**63)),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**20, 2**31, 2**63, 10**30, 10**400, -0.0, 0.5, 1e308),
    *(float("nan"), float("inf"), "", "x", "relu", "\0", "\x1b[31mred", "../../etc/passwd"),
    *("\ud800", "9" * 5000, "a" * 20000, "=1+1", [], {}, [[]], [0], [-1], [None], ["x"], {"x": 1}),
)
DTYPES = ("<f8", ">f4", "|O", "<f2", "<c16", "<U8", "|V8", "|b1", "<i8", "|S0", "", "<f99999")

Mutation = Callable[[bytes, random.Random], bytes]


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few changes anywhere: bits, numbers, pieces cut out, doubled, exchanged or overwritten."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not content:
            break
        at, size = rng.randrange(len(content)), rng.randrange(1, 80)
        kind = rng.randrange(9)
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind in (2, 3):
            width = rng.choice((1, 2, 4, 8))
            number = int.from_bytes(content[at : at + width], "little")
            number = rng.choice((*INTEGERS, number + 1, number - 1, number * 2)) % 256**width
            order = "little" if rng.random() < 0.8 else "big"
            content[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 4:
            del content[at:]
        elif kind == 5:
            del content[at : at + size]
        elif kind == 6:
            content[at:at] = content[at : at + size]
        elif kind == 7:
            to = rng.randrange(len(content))
            content[to : to + size] = content[at : at + size]
        else:
            content[at : at + size] = bytes([rng.randrange(256)]) * size
    return bytes(content)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to everything in JSON data."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    found = [here] if here else []
    for key, inner in items:
        found += places(inner, (*here, key))
    return found


def of_json(data: Any, rng: random.Random) -> Any:
    """Values replaced, removed, renamed, made deep, or put in each other's place."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        ways = places(data)
        if not ways:
            return rng.choice(VALUES)
        way = rng.choice(ways)
        parent = data
        for key in way[:-1]:
            parent = parent[key]
        key, kind = way[-1], rng.randrange(8)
        old = parent[key]
        if kind == 0:
            del parent[key]
        elif kind == 1:
            other = data
            for step in rng.choice(ways):
                other = other[step]
            parent[key] = json.loads(json.dumps(other))
        elif kind == 2 and isinstance(old, int | float):
            parent[key] = rng.choice((-old, old + 1, old - 1, old * 1000, str(old), float(old)))
        elif kind == 3 and isinstance(parent, dict):
            parent[str(rng.choice(VALUES))[:60]] = parent.pop(key)
        elif kind == 4 and rng.random() < 0.2:
            for _ in range(rng.choice((50, 2000))):
                old = [old]
            parent[key] = old
        else:
            parent[key] = rng.choice(VALUES)
    return data


def in_json(data: bytes, rng: random.Random) -> bytes:
    """Of a file of JSON."""
    try:
        return json.dumps(of_json(json.loads(data), rng)).encode()
    except RecursionError:
        return b"[" * 100_000
    except ValueError:
        return of_bytes(data, rng)


def in_npy(data: bytes, rng: random.Random) -> bytes:
    """Of the header of an array."""
    text = io.BytesIO(data)
    try:
        np.lib.format.read_magic(text)
        shape, order, dtype = np.lib.format.read_array_header_1_0(text)
    except ValueError:
        return of_bytes(data, rng)
    header = {"descr": dtype.str, "fortran_order": order, "shape": shape}
    key = rng.choice((*header, *header, "shape", "x"))
    header[key] = {
        "descr": rng.choice(DTYPES),
        "fortran_order": rng.choice((True, 1, None)),
        "shape": rng.choice(((), (0,), (2**40,), (2**31, 2**31), (-1, 4), (1,) * 40, shape[::-1],
                             (10**30,), (True, 4), (5.0, 4), (*shape, 1), (2**62, 4), None)),
    }.get(key, rng.choice(VALUES))  # fmt: skip
    line = repr(header).encode("latin-1", "replace")[:60000] + b" " * 9 + b"\n"
    return data[:8] + struct.pack("<H", len(line)) + line + data[text.tell() :]


def in_pickle(data: bytes, rng: random.Random) -> bytes:
    """Of the operations of a pickle."""
    try:
        starts = [at for *_, at in pickletools.genops(data)]
    except Exception:
        return of_bytes(data, rng)
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(6)
        named = [n for n, part in enumerate(parts) if part[:1] == b"c"]
        numbers = [n for n, part in enumerate(parts) if part[:1] in (b"K", b"M", b"J", b"\x8a")]
        texts = [n for n, part in enumerate(parts) if part[:1] in (b"X", b"\x8c")]
        if kind == 0 and len(parts) > 1:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[other])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3 and numbers:
            number = rng.choice(INTEGERS)
            width = number.bit_length() // 8 + 1
            packed = number.to_bytes(width, "little", signed=True)
            parts[rng.choice(numbers)] = b"\x8a" + bytes([width]) + packed
        elif kind == 4 and texts:
            text = rng.choice(
                ("", "0", "FloatStorage", "cuda:0", "meta", "../x", "\x1b[1m")
            ).encode()
            parts[rng.choice(texts)] = b"X" + struct.pack("<I", len(text)) + text
        elif named:
            parts[rng.choice(named)] = rng.choice(
                (b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nHalfStorage\n", b"cos\nsystem\n",
                 b"ctorch._utils\n_rebuild_sparse_tensor\n", b"ctorch._utils\n_rebuild_qtensor\n",
                 b"ctorch\nSize\n", b"ccollections\nOrderedDict\n",
                 b"ctorch\nComplexFloatStorage\n",
                 b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch\nQInt8Storage\n",
                 b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nBoolStorage\n")
            )  # fmt: skip
    return b"".join(parts)


def in_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Of the header."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    kind = rng.randrange(5)
    if kind == 0:
        entry["dtype"] = rng.choice(("F64", "F16", "BF16", "BOOL", "I8", "F8_E4M3", "C64", "x"))
    elif kind == 1:
        shape = entry["shape"]
        entry["shape"] = rng.choice(
            ([], [0], [2**40], [2**32, 2**32], [-1, -4], shape[::-1], [1, *shape], [0, 2**60])
        )
    elif kind == 2:
        entry["data_offsets"] = rng.choice(([0, 0], [0, 4], [2**62, 2**63], [4, 0], [0, 2**40]))
    else:
        header = of_json(header, rng)
    text = json.dumps(header).encode() + b" " * rng.choice((0, 0, 1, 3))
    length = len(text) if rng.random() < 0.95 else rng.choice(INTEGERS) % 2**64
    return length.to_bytes(8, "little") + text + data[8 + n :]


@functools.cache
def onnx_operators() -> list[str]:
    """The names of all operators."""
    import onnx

    return [schema.name for schema in onnx.defs.get_all_schemas()]


def in_onnx(data: bytes, rng: random.Random) -> bytes:
    """Of the fields of the messages that a model is made of."""
    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:
        return of_bytes(data, rng)
    operators = onnx_operators()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(
            ValueError, TypeError, OverflowError, UnicodeError, AttributeError
        ):
            _change_message(model, rng, operators)
    return bytes(model.SerializeToString())


def _change_message(message: Any, rng: random.Random, operators: list[str]) -> None:
    for _ in range(rng.randrange(1, 8)):
        inner: list[Any] = []
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                inner += [value] if hasattr(value, "ListFields") else list(value)
        if not inner:
            break
        message = rng.choice(inner)
    field, value = rng.choice(message.ListFields())
    several = not hasattr(value, "ListFields") and hasattr(value, "append")
    at = rng.randrange(len(value)) if several and len(value) else 0
    if field.type == field.TYPE_MESSAGE:
        if not several:
            message.ClearField(field.name)
        elif rng.random() < 0.4:
            del value[at]
        elif rng.random() < 0.5:
            value.add().CopyFrom(value[at])
        else:
            value[at].CopyFrom(value[rng.randrange(len(value))])
        return
    if field.name == "op_type":
        new: Any = rng.choice(operators)
    elif field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM):
        new = rng.choice((*INTEGERS, *range(-3, 25)))
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        new = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 0.5))
    elif field.type == field.TYPE_STRING:
        new = rng.choice(("", "x", "y", "h", "a", "../x", "/etc/passwd", "\x1b[31m", "VALID"))
    else:
        new = of_bytes(value if isinstance(value, bytes) else b"".join(value), rng)
    if not several:
        setattr(message, field.name, new)
    elif rng.random() < 0.3:
        value.append(new)
    elif rng.random() < 0.4:
        del value[at]
    else:
        value[at] = new


def in_hdf5(data: bytes, rng: random.Random) -> bytes:
    """Of the groups, arrays and attributes of a file."""
    import h5py

    out = io.BytesIO(data)
    try:
        with warnings.catch_warnings(), h5py.File(out, "r+") as file:
            warnings.simplefilter("ignore")
            _change_hdf5(file, rng, h5py)
    except Exception:
        return of_bytes(data, rng)
    return out.getvalue()


def _change_hdf5(file: Any, rng: random.Random, h5py: Any) -> None:
    names: list[str] = []
    file.visit(names.append)
    name = rng.choice(names)
    item, kind = file[name], rng.randrange(7)
    if kind < 3 and "model_config" in file.attrs:
        changed = of_json(json.loads(file.attrs["model_config"]), rng)
        file.attrs["model_config"] = json.dumps(changed)
    elif kind == 3:
        del file[name]
    elif kind == 4 and isinstance(item, h5py.Dataset):
        shape = rng.choice(((), (0,), item.shape[::-1], (*item.shape, 1), (3, 3), item.shape[:1]))
        dtype = rng.choice((item.dtype, "f8", "f2", "i4", "u1", "S3", "c8", "?", [("a", "f4")]))
        del file[name]
        file.create_dataset(name, shape, dtype)
    elif kind == 5 and (where := rng.choice((file, item))).attrs:
        where.attrs[rng.choice(list(where.attrs))] = rng.choice(
            ("x", 1, -1, np.arange(3), np.array([b"a", b"b"]), 1.5, "a" * 60000)
        )
    else:
        file[f"{name}/again" if isinstance(item, h5py.Group) else f"{name}_x"] = rng.choice(
            (file["/"], h5py.SoftLink("/"), h5py.ExternalLink("/etc/passwd", "/"), item)
        )


def zipped(inside: Callable[[str, bytes, random.Random], bytes]) -> Mutation:
    """Of what is in an archive, with checksums that fit, or of its members' names and order."""

    def change(data: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [(info, archive.read(info)) for info in archive.infolist()]
        except Exception:
            return of_bytes(data, rng)
        at, kind = rng.randrange(len(members)), rng.randrange(8)
        if kind < 6:
            info, content = members[at]
            members[at] = (info, inside(info.filename, content, rng))
        elif kind == 6:
            members.pop(at)
        else:
            members.insert(at, rng.choice(members))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for info, content in members:
                name = info.filename
                if rng.random() < 0.02:
                    name = rng.choice(("../x", "/etc/x", "a\0b", "\x1b[31m", "config.json", "x"))
                new = zipfile.ZipInfo(name)
                new.compress_type = rng.choice((info.compress_type, 0, 8))
                archive.writestr(new, content)
        return out.getvalue()

    return change


def _in_npz(name: str, content: bytes, rng: random.Random) -> bytes:
    if name == "ncut_graph.npy" and rng.random() < 0.8:
        out = io.BytesIO()
        header = in_json(str(np.load(io.BytesIO(content))).encode(), rng)
        np.save(out, np.array(header.decode()))
        return out.getvalue()
    return (in_npy if rng.random() < 0.7 else of_bytes)(content, rng)


def _in_torch(name: str, content: bytes, rng: random.Random) -> bytes:
    return (in_pickle if name.endswith(".pkl") and rng.random() < 0.8 else of_bytes)(content, rng)


def _in_keras(name: str, content: bytes, rng: random.Random) -> bytes:
    ways = {".json": in_json, ".h5": in_hdf5}
    return ways.get(name[name.rfind(".") :], of_bytes)(content, rng)


def _in_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = in_json(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def _in_pt(data: bytes, rng: random.Random) -> bytes:
    return (zipped(_in_torch) if data[:2] == b"PK" else in_pickle)(data, rng)


BY_SUFFIX: dict[str, Mutation] = {
    ".npz": zipped(_in_npz),
    ".npy": in_npy,
    ".pt": _in_pt,
    ".pt2": zipped(_in_keras),
    ".jit": _in_pt,
    ".safetensors": in_safetensors,
    ".onnx": in_onnx,
    ".keras": zipped(_in_keras),
    ".h5": in_hdf5,
    ".json": in_json,
    ".jsonl": _in_lines,
    "_METADATA": in_json,
    ".zarray": in_json,
}


def mutated(suffix: str, data: bytes, rng: random.Random) -> bytes:
    """A damaged file: mostly in the structure of its format, otherwise in its bytes."""
    way = BY_SUFFIX.get(suffix, of_bytes) if rng.random() < 0.7 else of_bytes
    try:
        return way(data, rng)
    except Exception:  # what a change before this one made it stumble over
        return of_bytes(data, rng)
