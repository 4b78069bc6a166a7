"""Checkpoints on disk and in memory: one behaves as the other."""

import pytest
import torch

from tinytl.errors import BundleError, TinyTLError
from tinytl.training.checkpoint import (
    FileCheckpoint,
    MemoryCheckpoint,
    read_tensors,
    write_content,
)

_TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3).t(),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "bytes": torch.tensor([[7]], dtype=torch.uint8),
}
_HEADER = {"history": [{"epoch": 0}], "name": "ß"}


@pytest.fixture(params=["file", "memory"])
def checkpoint(request, tmp_path):
    if request.param == "file":
        return FileCheckpoint(tmp_path / "training.safetensors")
    return MemoryCheckpoint()


def test_what_was_saved_is_read_back(checkpoint):
    assert not checkpoint.exists()
    checkpoint.save({"other": torch.zeros(1)}, {})
    checkpoint.save(_TENSORS, _HEADER)
    assert checkpoint.exists()
    with checkpoint.open() as (tensors, header):
        assert header == _HEADER
        assert set(tensors) == set(_TENSORS)
        for name, value in _TENSORS.items():
            assert tensors[name].dtype == value.dtype
            assert torch.equal(tensors[name], value)


def test_bytes_in_memory_are_those_of_a_file(tmp_path):
    in_memory, on_disk = MemoryCheckpoint(), FileCheckpoint(tmp_path / "saved")
    in_memory.save(_TENSORS, _HEADER)
    on_disk.save(_TENSORS, _HEADER)
    assert in_memory.content == (tmp_path / "saved").read_bytes()
    write_content(tmp_path / "written", in_memory.content)
    tensors, header = read_tensors(tmp_path / "written")
    assert (set(tensors), header) == (set(_TENSORS), _HEADER)
    with MemoryCheckpoint((tmp_path / "saved").read_bytes()).open() as (tensors, _):
        assert torch.equal(tensors["half"], _TENSORS["half"])


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:-1], lambda c: c[:3], bytes.upper])
def test_damaged_bytes_are_refused(damage):
    checkpoint = MemoryCheckpoint()
    checkpoint.save(_TENSORS, _HEADER)
    with (
        pytest.raises(BundleError, match="no tensor file of tinyfit"),
        MemoryCheckpoint(damage(checkpoint.content)).open(),
    ):
        pass


def test_bytes_without_a_header_are_refused():
    from safetensors.torch import save

    with pytest.raises(BundleError, match="no tensor file"), MemoryCheckpoint(save({})).open():
        pass


def test_content_that_can_not_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TinyTLError, match=r"can't write training\.safetensors"):
        write_content(tmp_path / "missing" / "training.safetensors", b"content")
    (tmp_path / "training.safetensors").mkdir()
    with pytest.raises(TinyTLError, match=r"can't write training\.safetensors"):
        write_content(tmp_path / "training.safetensors", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]
