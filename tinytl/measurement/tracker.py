"""What a piece of work really takes: storage peak, allocator peak, resident memory.

- Storage peak: the largest sum of live tensor storages' bytes, temporaries inside operators apart.
- Allocator peak: the most that torch's allocator had handed out, temporaries included.
- Resident memory: what the system gave the process; no tensor need account for it. Linux only.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

_CPU = torch.device("cpu")
_MAPS = Path("/proc/self/maps")
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_MEMORY_WITH_A_PATH = ("/dev/", "/memfd:", "/SYSV")
_AT_START = "before the run"


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Both peaks of one piece of work; what was alive before it counts."""

    storage_bytes: int
    allocator_bytes: int


@dataclass(frozen=True, kw_only=True)
class ResidentMemory:
    """Resident memory of the process through a piece of work.

    growth_bytes: VmHWM after it less VmRSS before it. process_peak_bytes: VmHWM of the process,
    torch's libraries included, since its start or its last measurement.
    """

    growth_bytes: int
    process_peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class LiveStorage:
    """A storage that was alive at the peak, and the tensor and operator that first showed it."""

    storage_bytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    operator: str
    label: str


def measure_peaks(run: Callable[[], object], device: torch.device = _CPU) -> Peaks:
    """Both peaks of run on one device. It is run twice, as the instruments disturb each other.

    What the first time leaves behind, optimizer state say, is there at the start of the second.
    """
    return Peaks(
        storage_bytes=storage_peak_bytes(run, device),
        allocator_bytes=allocator_peak_bytes(run, device),
    )


def storage_peak_bytes(run: Callable[[], object], device: torch.device = _CPU) -> int:
    """Run it under a StorageTracker; the peak."""
    gc.collect()
    with StorageTracker(device=device) as tracker:
        run()
    return tracker.peak_bytes


def allocator_peak_bytes(run: Callable[[], object], device: torch.device = _CPU) -> int:
    """Run it; the most that torch's allocator for the device had handed out at any moment.

    Temporaries inside operators count, and so do tensors that were alive at the start. On the
    CPU, memory that NumPy allocated counts only as a tensor that was alive at the start.
    """
    gc.collect()
    if device.type == "cuda":
        return _cuda_peak_bytes(run, device)
    standing_bytes = live_tensor_bytes()
    with profile(profile_memory=True, use_kineto=True) as profiler:
        run()
    return standing_bytes + _peak_of_events(profiler)


def live_tensor_bytes(device: torch.device = _CPU) -> int:
    """Bytes of the storages of all tensors on the device that are visible to Python."""
    ledger = _Ledger(device)
    ledger.note_everything_alive()
    ledger.close()
    return ledger.live_bytes


def resident_memory(run: Callable[[], object]) -> ResidentMemory | None:
    """Run it; how far resident memory rose. None where the platform does not tell.

    Meant for a fresh process: an old one has freed memory at hand that it may fill again.
    """
    peak_before, before = _status_bytes("VmHWM"), _status_bytes("VmRSS")
    _reset_peak_rss()
    run()
    peak = _status_bytes("VmHWM")
    if before is None or peak is None or peak_before is None:
        return None
    return ResidentMemory(
        growth_bytes=max(0, peak - before), process_peak_bytes=max(peak, peak_before)
    )


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every tensor storage from the operator that first shows it until it is freed.

    Counted: what gc finds at the start (tensors, and the gradients of leaves), the storages of
    all inputs and outputs of operators, at their size after the operator, resized storages, and
    what gc finds at the end. A storage counts once, however many views it has, and storages
    that begin at one address count as the largest of them.
    Not counted: temporaries inside operators; meta and fake tensors; the pages of a mapped file,
    which no one allocated (a private copy-on-write mapping, as of safetensors, does count);
    what only a graph built before the run or another thread holds, until an operator reads it.
    Batches from torch.from_numpy count as tensors, though NumPy allocated them.

    keep_history: note what each storage is, for at_peak(); takes memory with every operator.
    """

    def __init__(self, *, device: torch.device = _CPU, keep_history: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = _Ledger(device, keep_history=keep_history)
        self._resize_before: Any = None

    @property
    def peak_bytes(self) -> int:
        """The largest sum of live storages' bytes so far."""
        return self._ledger.peak_bytes

    def at_peak(self, count: int | None = None) -> tuple[LiveStorage, ...]:
        """The storages alive at the peak (its first moment), the largest first, at most count."""
        alive = self._ledger.alive_at_peak()
        return tuple(sorted(alive, key=lambda entry: -entry.storage_bytes)[:count])

    @contextmanager
    def label(self, name: str) -> Iterator[None]:
        """Storages first seen inside carry this label in at_peak()."""
        outer, self._ledger.label = self._ledger.label, name
        try:
            yield
        finally:
            self._ledger.label = outer

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: to leave this out, torch would first import its compiler."""
        return False

    def __enter__(self) -> Self:
        self._ledger.note_everything_alive()
        self._ledger.settle_peak()
        super().__enter__()  # type: ignore[no-untyped-call]
        self._watch_resizes()
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        super().__exit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]
        del UntypedStorage.resize_
        if self._resize_before is not None:
            setattr(UntypedStorage, "resize_", self._resize_before)  # noqa: B010
        if exc_type is None:
            self._ledger.note_everything_alive("at the end of the run")
            self._ledger.settle_peak()
        self._ledger.close()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            self._ledger.note_nested((result, args, *kwargs.values()), func)
        self._ledger.settle_peak()
        return result

    def _watch_resizes(self) -> None:
        """UntypedStorage.resize_ passes no dispatcher, so for the run it is a method of ours."""
        resize, ledger = UntypedStorage.resize_, self._ledger

        def resize_(storage: Any, size: int) -> Any:
            resized = resize(storage, size)
            ledger.note(storage, (), None, "UntypedStorage.resize_")
            ledger.settle_peak()
            return resized

        self._resize_before = vars(UntypedStorage).get("resize_")
        setattr(UntypedStorage, "resize_", resize_)  # noqa: B010


class _Seen(weakref.ref[UntypedStorage]):
    """A storage as last noted. torch keeps a storage's Python object as long as the storage."""

    __slots__ = ("address", "key", "storage_bytes")
    key: int
    address: int
    storage_bytes: int


@dataclass
class _Block:
    """Memory at one address, and how many storages share it."""

    block_bytes: int
    num_storages: int


class _Ledger:
    """The storages alive on a device, the sum of their bytes and its peak."""

    def __init__(self, device: torch.device, *, keep_history: bool = False) -> None:
        self.device = device
        self.live_bytes = 0
        self.peak_bytes = 0
        self.label = ""
        self._seen: dict[int, _Seen] = {}
        self._blocks: dict[int, _Block] = {}
        self._history: list[tuple[int, LiveStorage | None]] | None = [] if keep_history else None
        self._peak_position = 0

    def note_everything_alive(self, operator: str = _AT_START) -> None:
        """Note every tensor that gc knows, and the gradients of leaves."""
        with torch._C.DisableTorchFunctionSubclass():
            for candidate in gc.get_objects():
                if issubclass(type(candidate), Tensor):
                    self.note_tensor(candidate, operator)
                    if candidate.is_leaf and candidate.grad is not None:
                        self.note_tensor(candidate.grad, operator)

    def note_nested(self, value: Any, operator: Any) -> None:
        """Note the tensors of an operator's arguments or results, however nested."""
        if isinstance(value, Tensor):
            self.note_tensor(value, operator)
        elif isinstance(value, (tuple, list)):
            for item in value:
                self.note_nested(item, operator)

    def note_tensor(self, tensor: Tensor, operator: Any) -> None:
        try:
            storage = tensor.untyped_storage()
        except RuntimeError:  # a sparse tensor has none; operators show its indices and values
            return
        seen = self._seen.get(storage._cdata)
        if seen is None or seen.storage_bytes != storage.nbytes():
            self.note(storage, tensor.shape, tensor.dtype, operator)

    def note(
        self,
        storage: UntypedStorage,
        shape: tuple[int, ...],
        dtype: torch.dtype | None,
        operator: Any,
    ) -> None:
        """Count a storage that is new or has another size than before."""
        on_device = storage.device
        if on_device.type != self.device.type or (
            self.device.index is not None and on_device.index != self.device.index
        ):
            return
        key = storage._cdata
        before = self._seen.pop(key, None)
        if before is not None:
            self._release(before.address)
        seen = _Seen(storage, self._forget)
        seen.key, seen.address, seen.storage_bytes = key, storage.data_ptr(), storage.nbytes()
        if seen.address and not storage.resizable() and _belongs_to_a_file(seen.address):
            seen.address = 0
        self._seen[key] = seen
        if not seen.address:  # empty, fake, a wrapper around other tensors, or a file
            return
        block = self._blocks.setdefault(seen.address, _Block(0, 0))
        block.num_storages += 1
        added = max(0, seen.storage_bytes - block.block_bytes)
        block.block_bytes += added
        self.live_bytes += added
        if self._history is not None and added:
            entry = LiveStorage(
                storage_bytes=block.block_bytes,
                shape=tuple(shape),
                dtype=dtype,
                operator=str(operator),
                label=self.label,
            )
            self._history.append((seen.address, entry))

    def settle_peak(self) -> None:
        """Compare with the peak, once all that an operator made has been noted."""
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes = self.live_bytes
            self._peak_position = len(self._history or ())

    def alive_at_peak(self) -> list[LiveStorage]:
        """The history up to the peak, replayed."""
        assert self._history is not None, "the tracker was made without keep_history"
        alive: dict[int, LiveStorage] = {}
        for address, entry in self._history[: self._peak_position]:
            if entry is None:
                del alive[address]
            else:
                alive[address] = entry
        return list(alive.values())

    def close(self) -> None:
        """Let go of all storages; nothing is followed any more."""
        self._seen.clear()
        self._blocks.clear()

    def _forget(self, seen: weakref.ref[UntypedStorage]) -> None:
        assert isinstance(seen, _Seen)
        if self._seen.get(seen.key) is seen:
            del self._seen[seen.key]
            self._release(seen.address)

    def _release(self, address: int) -> None:
        if not address:
            return
        block = self._blocks[address]
        block.num_storages -= 1
        if block.num_storages > 0:
            return
        del self._blocks[address]
        self.live_bytes -= block.block_bytes
        if self._history is not None:
            self._history.append((address, None))


def _belongs_to_a_file(address: int) -> bool:
    """Whether memory is a mapped file's own pages, which the system may drop at any time.

    Shared or read-only, that is: pages that are private and writable become the process's own.
    """
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        span, permissions, _offset, _device, _inode, *path = line.split(maxsplit=5)
        start, _, end = span.partition("-")
        if int(start, 16) <= address < int(end, 16):
            is_file = bool(path) and path[0].startswith("/")
            is_own = permissions[1] == "w" and permissions[3] == "p"
            return is_file and not is_own and not path[0].startswith(_MEMORY_WITH_A_PATH)
    return False


def _cuda_peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The caching allocator's own peak; what is allocated at the reset counts."""
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device)


def _peak_of_events(profiler: profile) -> int:
    """The highest running sum of the allocator's events (bytes; negative for a free)."""
    results = profiler.kineto_results
    assert results is not None
    events = [event for event in results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, live)
    return peak


def _status_bytes(field: str) -> int | None:
    """A field of Linux's /proc/self/status, in bytes."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    return None


def _reset_peak_rss() -> None:
    """Make VmHWM start again from the present; without effect where that is not allowed."""
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
