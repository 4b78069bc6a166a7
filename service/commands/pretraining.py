"""`tinyfit pretrain`: a supernet of the user's own, from folders and zips of class folders.

Killed or interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import PretrainError, SearchError
from search.pretraining.settings import PretrainSettings, usual_schedule
from search.space.architecture import SupernetSpec
from search.space.families import MAX_WIDTH, MIN_WIDTH, base_of
from search.supernets.registry import DEFAULT_SUPERNET, card_path, locate
from service.commands.output_folder import (
    STATE,
    check_apart,
    locked,
    removed_unless_used,
    signals_set,
)
from service.commands.sources import Sources, open_sources
from service.console import Meter
from service.datasets.names import name_of
from service.errors import BrokenImagesError, DatasetError, InputError, ServiceError
from service.record.files.blobs import hash_of
from service.settings import Settings
from tinytl.errors import CancelledError
from tinytl.squares import Fit, Squaring
from tinytl.units import format_bytes

if TYPE_CHECKING:
    from search.pretraining.run import Progress
    from search.supernets.registry import SupernetFile

_FAMILIES = {"proxyless": "proxyless", "mobilenetv3": "mbv3"}
_FEW_IMAGES = 10_000
"""Fewer than these are better taught to a supernet that is trained already."""

_NAME = re.compile(r"(?!gn(_|$))[A-Za-z0-9_.-]+")


class InterruptedPretrainingError(ServiceError):
    """The user stopped the training; it can go on."""


class FailedPretrainingError(ServiceError):
    """The training broke off; what it left says how far it came."""


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """What is asked for. start takes the place of family and width; None is the usual.

    norm "group" makes group norms of the batch norms of a start; None keeps its own.
    """

    data: Sequence[Path]
    output: Path
    family: str = "proxyless"
    width: float = 0.35
    norm: str | None = None
    name: str | None = None
    start: str | None = None
    num_processes: int | None = None
    fit: Fit = "crop"
    """How a picture becomes a square."""
    licence: str = "not stated; the licences of the images and of the start hold"
    settings: Mapping[str, Any]
    """Of PretrainSettings, those that are not to be the usual."""


def pretrain(request: PretrainRequest, settings: Settings, meter: Meter) -> Path:
    """Train the supernet, or go on with it; the path of its .safetensors, a card beside it."""
    with ExitStack() as stack:
        for data in request.data:
            check_apart(data, request.output)
        sources = stack.enter_context(open_sources(request.data, settings))
        if settings.skip_broken:
            sources.leave_out_broken(lambda done, total: meter.show("check images", done / total))
        start = _start(request.start, settings)
        architecture = _architecture(request, start)
        stack.enter_context(removed_unless_used(request.output))
        stack.enter_context(locked(request.output, "tinyfit pretrain"))
        stop = threading.Event()
        stack.enter_context(signals_set(stop))
        stack.callback(meter.close)
        try:
            pretraining = _Pretraining(request, sources, start, architecture, meter)
        except SearchError as error:
            raise InputError(str(error)) from error
        return pretraining.run(stop)


class _Pretraining:
    """One training: its images, its settings, and where it lies."""

    def __init__(
        self,
        request: PretrainRequest,
        sources: Sources,
        start: SupernetFile | None,
        architecture: str,
        meter: Meter,
    ) -> None:
        # torch's threads must not take the processors from others while they wait
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from search.elastic.supernet import load_supernet_file
        from search.pretraining.output import Note  # imports torch
        from search.pretraining.processes import usual_num_processes

        self._sources, self._start, self._meter = sources, start, meter
        self._output, self._state = request.output, request.output / STATE
        self._squaring = Squaring(fit=request.fit)
        self._num_processes = request.num_processes or usual_num_processes()
        self._samples = sources.samples(seed=request.settings.get("seed", 0))
        num_images = sum(sample.split == "train" for sample in self._samples)
        schedule = usual_schedule(
            num_images, self._num_processes, request.settings.get("batch_size")
        )
        self._settings = PretrainSettings(
            architecture=architecture,
            start=None if start is None else start.spec.id,
            **{**vars(schedule), **request.settings},
        )
        self._steps_per_epoch = self._settings.steps_per_epoch(num_images, self._num_processes)
        data = {
            "names": list(sources.names),
            "num_classes": len(sources.classes),
            "num_train_images": num_images,
            "num_val_images": len(self._samples) - num_images,
            "validation": "a split of the data" if sources.has_validation else "held out",
            "image_side": self._settings.resolutions[-1],
            "listing_sha256": sources.sha256(),
        }
        if request.fit != "crop":
            data["fit"] = request.fit
        if start is not None:
            load_supernet_file(start)  # a damaged one is refused before the images are read
            data["start_sha256"] = hash_of(start.path)
        self._note = Note(
            data=data,
            classes=sources.classes,
            licence=request.licence,
            start=None if start is None else _card(start),
        )
        self._measures = ""

    def run(self, stop: threading.Event) -> Path:
        from search.pretraining.processes import Pretraining, run_in_processes
        from search.pretraining.run import training_state

        done = training_state(self._output, self._settings, self._note).done()
        path = self._output / f"{self._settings.architecture}.safetensors"
        if done.is_finished:
            self._remove_images()
            for result in (path, path.with_suffix(".json")):
                if not result.is_file():
                    raise InputError(
                        f"{result.name!r} was finished in {str(self._output)!r} but is gone; "
                        f"remove that folder to train it again"
                    )
            return path
        self._tell(done.steps)
        try:
            pretraining = Pretraining(
                settings=self._settings,
                store=self._image_store(stop),
                directory=self._output,
                note=self._note,
                start=self._start,
            )
            path = run_in_processes(
                pretraining, self._num_processes, on_progress=self._show, should_stop=stop.is_set
            )
        except CancelledError as error:
            raise InterruptedPretrainingError(
                "stopped; run the same command again to go on"
            ) from error
        except PretrainError as error:
            raise FailedPretrainingError(str(error)) from error
        self._remove_images()
        return path

    def _tell(self, num_steps_done: int) -> None:
        data, settings = self._note.data, self._settings
        notes = self._sources.notes()
        if self._start is None and data["num_train_images"] < _FEW_IMAGES:
            notes.append(
                f"so few images teach random weights little; --start {DEFAULT_SUPERNET} begins "
                f"with trained ones"
            )
        for text in notes:
            self._meter.note(f"note: {text}")
        self._meter.note(
            f"{settings.architecture}: {data['num_classes']} classes, {data['num_train_images']} "
            f"images to train on, {data['num_val_images']} to validate with, {settings.epochs} "
            f"epochs in batches of {settings.batch_size}"
        )
        if num_steps_done:
            self._meter.note(f"going on after step {num_steps_done}")

    def _image_store(self, stop: threading.Event) -> Path:
        """The images decoded at the largest resolution, once for all runs of this training."""
        from tinytl.training.data import ingest

        side = self._settings.resolutions[-1]
        whole = json.dumps([self._note.data, self._settings.seed])
        store = self._state / f"images-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"
        if store.is_dir():
            return store
        self._remove_images()
        needed, free = len(self._samples) * 3 * side**2, shutil.disk_usage(self._state).free
        if needed > free:
            raise InputError(
                f"the decoded images take {format_bytes(needed)}, but {format_bytes(free)} are "
                f"free in {str(self._output)!r}; make room, or ask for smaller resolutions"
            )
        try:
            ingest(
                self._samples,
                self._note.classes,
                store,
                image_size=side,
                splits=("train", "val"),
                squaring=self._squaring,
                decode=self._sources.decode,
                on_progress=lambda done, total: self._meter.show("read images", done / total),
                should_stop=stop.is_set,
            )
        except DatasetError:  # there may be more of them
            raise BrokenImagesError(
                self._sources.broken(
                    lambda done, total: self._meter.show("check images", done / total)
                )
            ) from None
        return store

    def _remove_images(self) -> None:
        """Of this training, or half of them, left behind by a run that was killed."""
        for path in self._state.glob("images-*"):
            shutil.rmtree(path)

    def _show(self, progress: Progress) -> None:
        if "evaluated" in progress:
            share = progress["evaluated"] / progress["num_evaluations"]
            self._meter.show("evaluate", share)
            return
        if "loss" in progress:
            loss, pace = progress["loss"], f"{progress['images_per_second']:.0f} images/s"
            self._measures = (
                f"loss {loss['largest']:.2f} (smallest {loss['smallest']:.2f}), {pace}"
            )
        epochs = self._settings.epochs
        for variant, found in progress.get("val_accuracy", {}).items():
            accuracies = ", ".join(f"{name} {value:.1%}" for name, value in found.items())
            self._meter.note(
                f"epoch {progress['epoch']}/{epochs} {variant.replace('_', ' ')}: {accuracies}"
            )
        self._meter.show(
            f"epoch {1 + (progress['step'] - 1) // self._steps_per_epoch}/{epochs}",
            progress["step"] / progress["num_steps"],
            detail=self._measures,
        )


def _start(name: str | None, settings: Settings) -> SupernetFile | None:
    if name is None:
        return None
    return locate(name, settings.supernet_cache_dir.expanduser())


def _card(start: SupernetFile) -> Mapping[str, Any] | None:
    """The start's card, where it has one, without the names of its classes."""
    path = card_path(start.path)
    if not path.is_file():
        return None
    card = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in card.items() if key != "classes"}


def _architecture(request: PretrainRequest, start: SupernetFile | None) -> str:
    """The id of the supernet to train."""
    name = request.name or re.sub(r"[^A-Za-z0-9_.-]+", "-", name_of(request.data[0]))
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--name must be of letters, digits, '_', '.' and '-', and not begin with 'gn', "
            f"but got {name!r}"
        )
    if start is None:
        if not MIN_WIDTH <= request.width <= MAX_WIDTH:
            raise InputError(
                f"--width must be from {MIN_WIDTH:g} to {MAX_WIDTH:g} but got {request.width}"
            )
        norm = "_gn" if request.norm == "group" else ""
        architecture = f"ofa_{_FAMILIES[request.family]}_d234_e346_k357_w{request.width}{norm}"
    else:
        architecture = base_of(start.spec.id)
        if request.norm == "batch" and start.spec.norm.kind == "group":
            raise InputError(f"{start.spec.id} has group norm, which can't become batch norm")
        if request.norm == "group" and start.spec.norm.kind == "batch":
            architecture += "_gn"
    return SupernetSpec.parse(f"{architecture}_{name}").id
