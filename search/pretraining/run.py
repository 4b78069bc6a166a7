"""Pretraining from the first step to the file: checkpoints, log, validation, the result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from search.architecture import SupernetSpec
from search.errors import PretrainError
from search.pretraining.images import TrainingImages
from search.pretraining.output import write_supernet
from search.pretraining.settings import PretrainSettings
from search.pretraining.trainer import Trainer
from search.pretraining.validation import accuracies, named_subnets
from search.supernet import Supernet, untrained_supernet
from tinytl.checkpoint import read_tensors, write_tensors
from tinytl.data import ImageStore
from tinytl.errors import BundleError, CancelledError

_CHECKPOINT = "checkpoint.safetensors"
_LOG = "log.jsonl"
_LOG_STEPS = 50


def pretrain(
    settings: PretrainSettings,
    store: ImageStore,
    directory: Path,
    *,
    start: Supernet | None = None,
    device: torch.device | None = None,
    checkpoint_seconds: float = 60,
    on_progress: Callable[[dict[str, Any]], None] = lambda entry: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train a supernet; returns the path of its .safetensors in directory, a card beside it.

    The state is saved in directory every checkpoint_seconds, and a run that finds it goes on
    from there, to the same result bit for bit on the same machine. Raises CancelledError when
    should_stop asks for it, PretrainError for a checkpoint of another run.
    """
    device = device or torch.device("cpu")
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint, log = directory / _CHECKPOINT, directory / _LOG
    supernet = start or _untrained(settings, store.num_classes)
    _move(supernet, device)
    split = store.split("train")
    trainer = Trainer(supernet, TrainingImages(split, device), settings)
    identity = {"settings": json.loads(json.dumps(asdict(settings))), "num_images": len(split)}
    done = _resume(checkpoint, trainer, identity) if checkpoint.exists() else 0
    _cut_log(log, done)
    saved = time.monotonic()
    logged, since = time.monotonic(), done
    for step in range(done, trainer.num_steps):
        if should_stop():
            _save(checkpoint, trainer, identity, step)
            raise CancelledError("pretraining was cancelled")
        losses = trainer.train_step(step)
        step_done = step + 1
        entry: dict[str, Any] = {"step": step_done, "num_steps": trainer.num_steps}
        if step_done % _LOG_STEPS == 0:
            now = time.monotonic()
            rate = (step_done - since) * settings.batch_size / (now - logged)
            logged, since = now, step_done
            entry |= {"images_per_second": round(rate, 1)}
            entry |= {f"loss_{name}": round(loss.item(), 4) for name, loss in losses.items()}
            _append(log, entry)
            on_progress(entry)
        if step_done % trainer.steps_per_epoch == 0:
            entry = {"step": step_done, "epoch": step_done // trainer.steps_per_epoch}
            entry["val_accuracy"] = accuracies(
                supernet,
                named_subnets(supernet.spec),
                store,
                settings.resolutions[-1],
                with_lite_residuals=settings.trains_lite_residuals,
            )
            _append(log, entry)
            on_progress(entry)
        if step_done == trainer.num_steps or time.monotonic() - saved > checkpoint_seconds:
            _save(checkpoint, trainer, identity, step_done)
            saved = time.monotonic()
    path = directory / f"{settings.architecture}.safetensors"
    write_supernet(path, supernet, _card(supernet, store, settings))
    return path


def _untrained(settings: PretrainSettings, num_classes: int) -> Supernet:
    return untrained_supernet(
        SupernetSpec.parse(settings.architecture),
        num_classes,
        lite_residuals=settings.trains_lite_residuals,
        generator=torch.Generator().manual_seed(settings.seed),
    )


def _move(supernet: Supernet, device: torch.device) -> None:
    supernet.network.to(device)
    for module in supernet.lite_residuals.values():
        module.to(device)


def _save(path: Path, trainer: Trainer, identity: dict[str, Any], done: int) -> None:
    write_tensors(path, trainer.state(), {**identity, "done": done})


def _resume(path: Path, trainer: Trainer, identity: dict[str, Any]) -> int:
    try:
        tensors, header = read_tensors(path)
        done = int(header.pop("done"))
    except (BundleError, KeyError) as error:
        raise PretrainError(f"checkpoint {path} is damaged: {error}; delete it") from error
    if header != identity:
        raise PretrainError(
            f"checkpoint {path} belongs to another training: {header!r}, not {identity!r}; "
            f"delete it or name another folder"
        )
    trainer.restore(tensors)
    return done


def _append(log: Path, entry: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _cut_log(log: Path, done: int) -> None:
    """Leave out what was logged after the checkpoint."""
    if log.exists():
        lines = log.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= done]
        log.write_text("".join(f"{line}\n" for line in kept))


def _card(supernet: Supernet, store: ImageStore, settings: PretrainSettings) -> dict[str, Any]:
    return {"architecture": settings.architecture, "settings": asdict(settings)}
