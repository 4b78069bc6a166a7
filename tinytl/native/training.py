"""A training by the device trainer on this machine: what tinytl.training.train does, in the
process that a device will have.

Its images, their order, crops, schedule and dropout are the engine's; it takes classes as they
are. A checkpoint is the trainer's state with the epochs so far.
"""

from __future__ import annotations

import hashlib
import json
import queue
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinytl.description.class_weights import is_balanced
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import Network
from tinytl.errors import BundleError, CancelledError, DivergenceError, TinyTLError
from tinytl.native.formats.image_file import StoredImage, write_image_file
from tinytl.native.formats.state_file import read_state
from tinytl.native.importer import assign_values
from tinytl.native.program import MAX_SEED, ProgramSettings, compile_program
from tinytl.native.unroll.parameters import Parameters
from tinytl.training.checkpoint import Checkpoint
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import EpochReport, TrainSettings

STATE = "device_state"
"""A checkpoint's tensor: the state file's bytes."""

_EPOCH = re.compile(r"epoch (\d+)/\d+ +loss (\S+) +accuracy (\S+)")
_MAX_RATE = 1e7
"""The trainer takes rates to 1e9, those of large batches among them."""
_PATIENCE_SECONDS = 0.1
"""Between looks at whether to stop."""


@dataclass(frozen=True, kw_only=True)
class DeviceTraining:
    """What a checkpoint tells. peak_resident_bytes: the most that the trainer's process was
    resident with; None while it is not finished."""

    history: tuple[EpochReport, ...]
    peak_resident_bytes: int | None


def trains_alike(method: Method, settings: TrainSettings, store: ImageStore) -> bool:
    """Whether the trainer does what the settings say: it takes classes as they are."""
    labels = _trained_split(store, settings).labels
    is_plain = not is_balanced(settings.class_weights, labels)
    is_known = settings.seed <= MAX_SEED and (settings.learning_rate or 0) <= _MAX_RATE
    return method.trains_on_device and is_plain and is_known


def _trained_split(store: ImageStore, settings: TrainSettings) -> ImageSplit:
    split = store.split("train")
    return split.followed_by(store.split("val")) if settings.refit else split


def _stored_images(train: ImageSplit, val: ImageSplit, *, refit: bool) -> Iterator[StoredImage]:
    """refit: validation images are trained on, too. Then one of them is judged all the same: the
    trainer would else judge all that it trains on."""
    sources: list[tuple[Split, ImageSplit, int | None]] = [("train", train, None)]
    if refit:
        sources.append(("train", val, None))
    sources.append(("val", val, 1 if refit else None))
    for name, split, at_most in sources:
        for pixels, label in zip(
            split.all_images().numpy()[:at_most], split.labels[:at_most], strict=True
        ):
            yield StoredImage(pixels=pixels, label=int(label), split=name)


def is_device_checkpoint(checkpoint: Checkpoint) -> bool:
    """Whether it is one of such a training. Raises BundleError where it is damaged."""
    with checkpoint.open() as (tensors, _):
        return STATE in tensors


def read_training(network: Network, plan: Plan, checkpoint: Checkpoint) -> DeviceTraining:
    """Give a network, as it was before the training, what its checkpoint has learned. Raises
    BundleError where that is damaged."""
    with tempfile.TemporaryDirectory() as folder:
        found, header = _state_of(checkpoint)
        path = Path(folder) / "state"
        path.write_bytes(found)
        state = read_state(path)
    network.store_trained(plan.trained_bits)
    assign_values(
        network, Parameters(network, plan.optimizer_bits, reserved_classes=0), state.payload
    )
    return DeviceTraining(
        history=_history(header), peak_resident_bytes=header["peak_resident_bytes"]
    )


def train_by(
    trainer: Path,
    network: Network,
    store: ImageStore,
    *,
    resolution: int,
    plan: Plan,
    settings: TrainSettings,
    checkpoint: Checkpoint,
    scratch: Path | None = None,
    on_resume: Callable[[Sequence[EpochReport]], None] = lambda history: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train a network, which itself stays as it is: read_training has what was learned.

    The arguments are those of tinytl.training.train.train; the checkpoint is saved after every
    epoch. trainer: the executable; scratch: where its files are, None for the system's folder of
    temporary ones. Raises CancelledError, DivergenceError, and BundleError for a checkpoint that
    is damaged or of another training.
    """
    network.store_trained(plan.trained_bits)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="device-") as folder:
        run = _Run(Path(folder), trainer, network, store, resolution, plan, settings)
        history: list[EpochReport] = []
        if checkpoint.exists():
            history = run.restore(checkpoint)
            on_resume(history)
        if len(history) == settings.epochs:
            return
        for report in run.epochs(history, should_stop):
            run.save(checkpoint, history)
            on_epoch(report)


class _Run:
    """The trainer's process and its files."""

    def __init__(
        self,
        folder: Path,
        trainer: Path,
        network: Network,
        store: ImageStore,
        resolution: int,
        plan: Plan,
        settings: TrainSettings,
    ) -> None:
        self._program, self._images = folder / "program.tfp", folder / "images.tfi"
        self._state = folder / "state"
        self._trainer, self._epochs = trainer, settings.epochs
        self._num_val = 0 if settings.refit else len(store.split("val"))
        self._states: dict[int, bytes] = {}
        """By the number of epochs that have gone into them."""
        self.peak_resident_bytes: int | None = None
        program = compile_program(
            network,
            plan,
            resolution=resolution,
            image_size=store.image_size,
            classes=tuple(store.classes),
            settings=ProgramSettings(
                learning_rate=settings.learning_rate,
                label_smoothing=settings.label_smoothing,
                augmentation=settings.augmentation,
                seed=settings.seed,
            ),
        )
        self._program.write_bytes(program)
        values = [store.split(name).sha256() for name in ("train", "val")]
        identity = json.dumps([settings.epochs, settings.refit, values]).encode()
        self._identity = hashlib.sha256(program + identity).hexdigest()
        write_image_file(
            self._images,
            _stored_images(store.split("train"), store.split("val"), refit=settings.refit),
            tuple(store.classes),
            image_size=store.image_size,
            max_classes=len(store.classes),
        )

    def restore(self, checkpoint: Checkpoint) -> list[EpochReport]:
        content, header = _state_of(checkpoint)
        if header["identity"] != self._identity:
            raise BundleError(f"the checkpoint {checkpoint.name} is of another training")
        self._state.write_bytes(content)
        history = list(_history(header))
        self._states[len(history)] = content
        self.peak_resident_bytes = header["peak_resident_bytes"]
        return history

    def save(self, checkpoint: Checkpoint, history: Sequence[EpochReport]) -> None:
        content = self._states.get(len(history))
        if content is None:  # the trainer was an epoch further when it was to be taken
            return
        checkpoint.save(
            {STATE: torch.from_numpy(np.frombuffer(content, np.uint8).copy())},
            {
                "identity": self._identity,
                "history": [asdict(report) for report in history],
                "peak_resident_bytes": self.peak_resident_bytes,
            },
        )

    def epochs(
        self, history: list[EpochReport], should_stop: Callable[[], bool]
    ) -> Iterator[EpochReport]:
        """Runs the trainer and adds epochs to the history, as they end; the last one when the
        process has ended, too."""
        command = [self._trainer, "train", self._program, self._images]
        options = ["--epochs", self._epochs, "--state", self._state, "--json"]
        started = time.perf_counter()
        with subprocess.Popen(
            [*map(str, command), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                last = ""
                for line in _lines(process, should_stop):
                    found = _EPOCH.match(line)
                    if found is None:
                        last = line.strip() or last
                        continue
                    report = self._report(found, time.perf_counter() - started)
                    started = time.perf_counter()
                    self._take_state()
                    history.append(report)
                    if len(history) < self._epochs:
                        yield report
                assert process.stdout is not None
                answer = process.stdout.read()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise _error(process.returncode, last)
        self.peak_resident_bytes = json.loads(answer.splitlines()[-1])["peak_resident_bytes"]
        self._take_state()
        yield history[-1]

    def _report(self, line: re.Match[str], seconds: float) -> EpochReport:
        accuracy = None
        if self._num_val:
            accuracy = round(float(line[3]) * self._num_val) / self._num_val
        return EpochReport(
            epoch=int(line[1]) - 1,
            num_epochs=self._epochs,
            train_loss=float(line[2]),
            val_accuracy=accuracy,
            seconds=seconds,
        )

    def _take_state(self) -> None:
        """The trainer may be an epoch further by now."""
        content = self._state.read_bytes()
        self._states[read_state(self._state).epochs] = content


def _lines(process: subprocess.Popen[str], should_stop: Callable[[], bool]) -> Iterator[str]:
    """What it says on standard error. Raises CancelledError."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        if should_stop():
            raise CancelledError("training was cancelled")
        try:
            line = lines.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def _error(status: int, said: str) -> TinyTLError:
    if "the loss became" in said:
        return DivergenceError(said)
    return TinyTLError(f"the device trainer ended with code {status}: {said or 'it said nothing'}")


def _state_of(checkpoint: Checkpoint) -> tuple[bytes, dict[str, Any]]:
    with checkpoint.open() as (tensors, header):
        if STATE not in tensors:
            raise BundleError(f"{checkpoint.name} is no checkpoint of the device trainer")
        return tensors[STATE].numpy().tobytes(), header


def _history(header: dict[str, Any]) -> tuple[EpochReport, ...]:
    return tuple(EpochReport(**report) for report in header["history"])
