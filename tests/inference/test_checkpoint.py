"""Checkpoints: the same bits back, and nothing foreign or damaged accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdsl.errors import InternalError, VfeError
from vdsl.inference import checkpoint


def _tree(seed: int = 0):
    params = {"w": jax.random.normal(jax.random.key(seed), (3, 4)), "b": [jnp.zeros(()), np.arange(5, dtype=np.int16)]}
    return {
        "params": params,
        "optimiser": optax.adam(1e-3).init({"w": params["w"]}),
        "key": jax.random.key(7 + seed),
        "raw_key": jax.random.PRNGKey(3 + seed),
        "half": jnp.asarray([1.5, -0.0, jnp.inf, jnp.nan], jnp.bfloat16),
        "double": np.array([np.pi, np.nan, -0.0, 5e-324]),
        "flags": np.array([True, False]),
        "empty": jnp.zeros((0, 3), jnp.int8),
        "step": 12 + seed,
        "rate": 0.1 + seed,
        "done": False,
        "nothing": None,
        "waves": jnp.asarray([1 + 2j]),
    }


def _bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return ("key", str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf)).tobytes())
    array = np.asarray(leaf)
    return (type(leaf).__module__.split(".")[0], array.dtype.name, array.shape, array.tobytes())


def test_restore_gives_the_same_bits_types_and_structure(tmp_path):
    saved, other = _tree(0), _tree(1)
    checkpoint.save(tmp_path / "c.npz", saved, "abc", {"plan": {"steps": 10}, "name": "é"})
    read = checkpoint.read(tmp_path / "c.npz", "abc")
    assert read.metadata == {"plan": {"steps": 10}, "name": "é"}
    back = checkpoint.restore(read, other)
    assert jax.tree_util.tree_structure(back) == jax.tree_util.tree_structure(saved)
    assert [_bits(x) for x in jax.tree.leaves(back)] == [_bits(x) for x in jax.tree.leaves(saved)]
    np.testing.assert_array_equal(
        np.asarray(jax.random.normal(back["key"], (4,))), np.asarray(jax.random.normal(saved["key"], (4,)))
    )


def test_file_is_readable_without_pickle_and_holds_no_objects(tmp_path):
    checkpoint.save(tmp_path / "c.npz", _tree(), "abc", {})
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        assert all(not file[name].dtype.hasobject for name in file.files)


def _code(error) -> str:
    return error.value.diagnostics[0].code


@pytest.mark.parametrize("keep", [0, 1, 100, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "c.npz"
    checkpoint.save(path, _tree(), "abc", {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VfeError) as error:
        checkpoint.read(path)
    assert _code(error) == "bad-checkpoint"
    assert error.value.exit_code == 2


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "c.npz"
    saved = _tree()
    checkpoint.save(path, saved, "abc", {"a": 1})
    good = path.read_bytes()
    expected = [_bits(x) for x in jax.tree.leaves(saved)]
    refused = 0
    for at in np.random.default_rng(0).integers(0, len(good), 150):
        bad = bytearray(good)
        bad[at] ^= 0x41
        path.write_bytes(bytes(bad))
        try:
            read = checkpoint.read(path)
        except VfeError as error:
            refused += error.diagnostics[0].code == "bad-checkpoint"
            continue
        assert read.metadata == {"a": 1}  # e.g. a time stamp of the zip archive: the content is verified to be the same
        assert [_bits(x) for x in jax.tree.leaves(checkpoint.restore(read, saved))] == expected
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "content"),
    [("text", b"hello"), ("npy", None), ("foreign", None), ("pickle", b"\x80\x04K\x01."), ("folder", None)],
)
def test_foreign_files_are_refused(tmp_path, name, content):
    path = tmp_path / "c.npz"
    match name:
        case "npy":
            with open(path, "wb") as file:
                np.save(file, np.arange(3))
        case "foreign":
            np.savez(path, description=np.arange(3), x=np.arange(2))
        case "folder":
            path.mkdir()
        case _:
            path.write_bytes(content)
    with pytest.raises(VfeError) as error:
        checkpoint.read(path)
    assert _code(error) == "bad-checkpoint"


def test_a_pickled_array_is_never_loaded(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, description=np.array([{"format": checkpoint.FORMAT}], dtype=object))
    with pytest.raises(VfeError) as error:
        checkpoint.read(path)
    assert _code(error) == "bad-checkpoint"


def test_another_model_is_refused_by_fingerprint_and_another_shape_by_name(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": jnp.zeros(3)}, "abc", {})
    with pytest.raises(VfeError, match="another model"):
        checkpoint.read(path, "abd")
    with pytest.raises(VfeError, match="'w'") as error:
        checkpoint.restore(checkpoint.read(path), {"w": jnp.zeros(4)})
    assert "found [3], expected [4]" in str(error.value)
    with pytest.raises(VfeError):
        checkpoint.restore(checkpoint.read(path), {"w": jnp.zeros(3, jnp.int32)})
    with pytest.raises(VfeError):
        checkpoint.restore(checkpoint.read(path), {"v": jnp.zeros(3)})
    with pytest.raises(VfeError):
        checkpoint.restore(checkpoint.read(path), {"w": jnp.zeros(3), "v": 1})


def test_what_is_not_an_array_is_a_bug_not_a_pickle(tmp_path):
    with pytest.raises(InternalError):
        checkpoint.save(tmp_path / "c.npz", {"f": object()}, "abc", {})
    with pytest.raises(InternalError):
        checkpoint.save(tmp_path / "c.npz", {"f": np.array([None])}, "abc", {})


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    import errno
    import os

    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": jnp.zeros(3)}, "abc", {"n": 1})
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VfeError, match="no space left") as error:
        checkpoint.save(path, {"w": jnp.ones(3)}, "abc", {"n": 2})
    assert (_code(error), error.value.exit_code) == ("disk-full", 4)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.npz"]
