"""Checkpoints: any pytree of arrays and numbers to one file, and back to the same bits.

A checkpoint is an uncompressed npz file, readable with `np.load(path, allow_pickle=False)`:

    description   JSON, as bytes: format, version, fingerprint, metadata, one entry per leaf, checksum
    leaf_0 …      the arrays, in the order of `jax.tree_util.tree_flatten_with_path`

A leaf's entry holds its path in the tree, its shape and dtype, and its kind: `array` (NumPy), `jax` (a JAX array),
`key` (a JAX random key: its key data and the name of its generator), or `number` (a Python bool, int or float: the
value itself). Nothing is pickled. The tree's structure is not stored: `restore` is given a tree of the same structure,
as any program that can resume has one, and refuses a file whose leaves differ from it in path, kind, shape or dtype.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic, InternalError, VfeError
from vdsl.files import replace_file

FORMAT, VERSION = "vdsl checkpoint", 1
# What NumPy, zipfile and json raise on bytes that are not what they should be.
_DAMAGE = (OSError, ValueError, EOFError, LookupError, AttributeError, TypeError, zipfile.BadZipFile, RuntimeError)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, verified against its checksum but not yet put into a tree."""

    path: Path
    fingerprint: str
    metadata: dict[str, Any]
    entries: tuple[dict[str, Any], ...]
    arrays: tuple[np.ndarray | None, ...]


def save(path: Path, tree: Any, fingerprint: str, metadata: Mapping[str, Any]) -> None:
    """Writes a checkpoint; the previous one stays until this one is complete.

    `fingerprint` names the program the state belongs to; `metadata` is anything JSON can hold.
    Raises VfeError `disk-full` or `unwritable`; InternalError for a leaf that is neither an array nor a number.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    packed = [_pack(jax.tree_util.keystr(where), leaf) for where, leaf in leaves]
    arrays = {f"leaf_{i}": array for i, (_, array) in enumerate(packed) if array is not None}
    description = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint,
        "metadata": dict(metadata),
        "leaves": [entry for entry, _ in packed],
    }
    description["checksum"] = _checksum(description, arrays)
    text = json.dumps(description, allow_nan=False).encode()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, description=np.frombuffer(text, np.uint8), **arrays)
    replace_file(path, buffer.getvalue())


def read(path: Path, fingerprint: str | None = None) -> Checkpoint:
    """Reads and verifies a checkpoint. If `fingerprint` is given the file must carry it.

    Raises VfeError `bad-checkpoint` for a missing, truncated, damaged or foreign file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile) or "description" not in file.files:
                _reject(path, "it is not a vdsl checkpoint")
            description = json.loads(file["description"].tobytes())
            arrays = {name: file[name] for name in file.files if name != "description"}
    except FileNotFoundError:
        _reject(path, "there is no such file")
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        _reject(path, f"it is truncated, damaged or not a checkpoint at all ({type(error).__name__})")
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        _reject(path, "it is not a vdsl checkpoint")
    if description.get("version") != VERSION:
        _reject(path, f"it has version {description.get('version')!r} of the format; this vdsl reads version {VERSION}")
    try:
        stated = description.pop("checksum")
        if _checksum(description, arrays) != stated:
            _reject(path, "its checksum is wrong: the file is damaged")
        entries = tuple(description["leaves"])
        found = Checkpoint(
            path=path,
            fingerprint=description["fingerprint"],
            metadata=description["metadata"],
            entries=entries,
            arrays=tuple(arrays.get(f"leaf_{i}") for i in range(len(entries))),
        )
    except (KeyError, TypeError):
        _reject(path, "its description is incomplete")
    if fingerprint is not None and found.fingerprint != fingerprint:
        _reject(
            path,
            "it belongs to another model",
            notes=(f"found fingerprint {found.fingerprint[:16]}…", f"expected {fingerprint[:16]}…"),
        )
    return found


def restore(checkpoint: Checkpoint, like: Any) -> Any:
    """The saved tree, with the structure of `like` and its leaves' exact bits. Raises VfeError `bad-checkpoint`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    if len(leaves) != len(checkpoint.entries):
        _reject(checkpoint.path, f"it holds {len(checkpoint.entries)} arrays where this run has {len(leaves)}")
    values = []
    for (where, leaf), entry, array in zip(leaves, checkpoint.entries, checkpoint.arrays, strict=True):
        expected, _ = _pack(jax.tree_util.keystr(where), leaf)
        differing = [k for k in ("path", "kind", "shape", "dtype", "generator") if entry.get(k) != expected.get(k)]
        if differing or (array is None) != (entry.get("kind") == "number"):
            _reject(
                checkpoint.path,
                f"its array `{entry.get('path')}` is not what this run expects",
                notes=tuple(f"{k}: found {entry.get(k)}, expected {expected.get(k)}" for k in differing),
            )
        values.append(_unpack(entry, array))
    return jax.tree_util.tree_unflatten(structure, values)


def _pack(where: str, leaf: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    if isinstance(leaf, bool | int | float):
        value = leaf.hex() if isinstance(leaf, float) else leaf  # hexadecimal keeps every bit, and inf and nan too
        return {"path": where, "kind": "number", "dtype": type(leaf).__name__, "value": value}, None
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = np.asarray(jax.random.key_data(leaf))
            generator = str(jax.random.key_impl(leaf))
            return _entry(where, "key", data) | {"generator": generator}, data
        array = np.asarray(leaf)
        return _entry(where, "jax", array), _plain(array)
    if isinstance(leaf, np.ndarray | np.generic):
        array = np.asarray(leaf)
        if array.dtype.hasobject:
            raise InternalError(f"checkpoint: {where} holds Python objects")
        return _entry(where, "array", array), _plain(array)
    raise InternalError(f"checkpoint: {where} is a {type(leaf).__name__}, neither an array nor a number")


def _entry(where: str, kind: str, array: np.ndarray) -> dict[str, Any]:
    return {"path": where, "kind": kind, "shape": list(array.shape), "dtype": array.dtype.name}


def _plain(array: np.ndarray) -> np.ndarray:
    """The array itself, or its bytes when its dtype (bfloat16 and the like) is not one that npy files know."""
    return array if array.dtype.isbuiltin == 1 else np.frombuffer(array.tobytes(), np.uint8)


def _unpack(entry: dict[str, Any], array: np.ndarray | None) -> Any:
    if array is None:
        match entry["dtype"]:
            case "float":
                return float.fromhex(entry["value"])
            case "bool":
                return bool(entry["value"])
            case _:
                return int(entry["value"])
    dtype = jnp.dtype(entry["dtype"])
    if array.dtype != dtype:
        array = np.frombuffer(array.tobytes(), dtype).reshape(entry["shape"])
    match entry["kind"]:
        case "key":
            return jax.random.wrap_key_data(jnp.asarray(array), impl=entry["generator"])
        case "jax":
            return jnp.asarray(array, dtype=dtype)
        case _:
            return array


def _checksum(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, allow_nan=False).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _reject(path: Path, reason: str, notes: tuple[str, ...] = ()) -> NoReturn:
    hint = "nothing was changed; start again with `vdsl solve`, or give the directory of another run"
    raise VfeError(
        Diagnostic("bad-checkpoint", f"cannot continue from `{path}`: {reason}", notes=notes, hints=(hint,)),
        exit_code=2,
    )
