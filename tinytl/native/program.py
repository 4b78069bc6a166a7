"""A bundle, unrolled into the program that trains it further on a device."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tinytl.description.config import Normalization
from tinytl.description.plan import Plan
from tinytl.engine.network import Network
from tinytl.errors import ConfigError
from tinytl.native.formats.program_file import (
    NO_BUFFER,
    PlacedBuffer,
    PlacedSegment,
    pack_op,
    pack_program,
    squaring_numbers,
)
from tinytl.native.layout import Layout, lay_out
from tinytl.native.methods import refusal
from tinytl.native.operations import operation_table
from tinytl.native.unroll.memory import Buffer, FrozenValues
from tinytl.native.unroll.parameters import PERSISTENT, Parameters, in_device_order
from tinytl.native.unroll.step import Unrolled, unroll
from tinytl.native.unroll.units import Values
from tinytl.squares import Squaring
from tinytl.training.bundle import Bundle
from tinytl.training.data import Augmentation
from tinytl.training.train import DEFAULT_LEARNING_RATES, TrainSettings

CLASS_NAME_BYTES = 256
MAX_SEED = (1 << 32) - 1
_MAX_CLASSES = 4096
_MAX_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class ProgramSettings:
    """How the device trains. reserved_classes: that it may add later."""

    learning_rate: float | None = None
    label_smoothing: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    reserved_classes: int = 0


def compile_bundle(
    bundle: Bundle, bundle_sha256: bytes, settings: ProgramSettings | None = None
) -> bytes:
    """The program of a bundle. Raises ConfigError, by name, for what the trainer does not do."""
    return compile_program(
        bundle.network,
        bundle.plan,
        resolution=bundle.resolution,
        image_size=bundle.image_size,
        classes=bundle.classes,
        settings=settings or ProgramSettings(),
        squaring=bundle.squaring,
        bundle_sha256=bundle_sha256,
    )


def compile_program(
    network: Network,
    plan: Plan,
    *,
    resolution: int,
    image_size: int,
    classes: tuple[str, ...],
    settings: ProgramSettings,
    squaring: Squaring | None = None,
    bundle_sha256: bytes = bytes(32),
) -> bytes:
    """The same of a network that may never have been in a bundle."""
    _check(network, plan, classes, settings)
    parameters = Parameters(
        network, plan.optimizer_bits, reserved_classes=settings.reserved_classes
    )
    parameters.reserve(settings.reserved_classes * CLASS_NAME_BYTES)
    frozen = FrozenValues()
    max_classes = len(classes) + settings.reserved_classes
    unrolled = unroll(
        network,
        plan,
        Values(parameters, frozen),
        resolution=resolution,
        image_size=image_size,
        max_classes=max_classes,
    )
    layout = lay_out(unrolled.segments, unrolled.ports, parameters.state_bytes)
    file = _File(layout)
    file.add_segments(unrolled)
    ports = {name: getattr(unrolled.ports, name) for name in _PORT_NAMES}
    weight = parameters.by_name["classifier.weight"]
    rate = settings.learning_rate or DEFAULT_LEARNING_RATES[network.method]
    return pack_program(
        ops=file.ops,
        segments=file.segments,
        classes=classes,
        frozen=frozen.content,
        values=_initial_values(network, parameters),
        ports={name: file.number(b) for name, b in ports.items() if b is not None},
        buffers=file.buffers,  # the ports' are among them by now
        numbers={
            "arena_bytes": layout.arena_bytes,
            "state_bytes": parameters.state_bytes,
            "value_bytes": parameters.value_bytes,
            "resolution": resolution,
            "image_size": image_size,
            "batch_size": plan.batch_size,
            "num_classes": len(classes),
            "max_classes": max_classes,
            "num_features": network.classifier.in_features,
            "classifier_bytes": weight.values.num_bytes // max_classes,
            "classifier": weight.values.offset,
            "classifier_bias": parameters.by_name["classifier.bias"].values.offset,
            "seed": settings.seed,
            "horizontal_flip": int(settings.augmentation.horizontal_flip),
            **squaring_numbers(squaring or Squaring()),
        },
        floats={
            "learning_rate": rate * math.sqrt(plan.batch_size / 8),
            "label_smoothing": settings.label_smoothing,
            "dropout_rate": network.config.dropout_rate,
            "min_crop_scale": settings.augmentation.min_crop_scale,
            **_normalization(network.config.normalization),
        },
        bundle_sha256=bundle_sha256,
    )


def _normalization(of: Normalization) -> dict[str, float]:
    colours = ("red", "green", "blue")
    return {
        **{f"mean_{colour}": value for colour, value in zip(colours, of.mean, strict=True)},
        **{f"deviation_{colour}": value for colour, value in zip(colours, of.std, strict=True)},
    }


_PORT_NAMES = (
    *("train_labels", "train_keep"),
    *("evaluate_images", "evaluate_scratch", "evaluate_logits"),
)


def _check(
    network: Network, plan: Plan, classes: tuple[str, ...], settings: ProgramSettings
) -> None:
    refused = refusal(network.method)
    if refused is not None:
        raise ConfigError(refused)
    TrainSettings(
        learning_rate=settings.learning_rate,
        label_smoothing=settings.label_smoothing,
        seed=settings.seed,
    )
    if settings.seed > MAX_SEED:
        raise ConfigError(f"the device trainer takes seeds below 2^32 but got {settings.seed}")
    room = len(classes) + settings.reserved_classes
    if settings.reserved_classes < 0 or room > _MAX_CLASSES:
        raise ConfigError(
            f"the device trainer has room for {_MAX_CLASSES} classes, but {len(classes)} and "
            f"{settings.reserved_classes} reserved ones make {room}"
        )
    if plan.batch_size > _MAX_BATCH:
        raise ConfigError(
            f"the device trainer takes batches up to {_MAX_BATCH} but got {plan.batch_size}"
        )
    for name in classes:
        if not 1 <= len(name.encode()) < CLASS_NAME_BYTES:
            raise ConfigError(
                f"the device trainer takes names of classes of up to {CLASS_NAME_BYTES - 1} bytes "
                f"in UTF-8, but {name!r} has {len(name.encode())}"
            )


class _File:
    """Operations and buffers as records; a buffer that is named twice is one record."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._numbers: dict[PlacedBuffer, int] = {}
        self.ops: list[bytes] = []
        self.segments: list[PlacedSegment] = []

    @property
    def buffers(self) -> list[PlacedBuffer]:
        return list(self._numbers)

    def number(self, buffer: Buffer) -> int:
        offset, storage = buffer.offset, buffer.storage
        if storage is not None and storage is not PERSISTENT:
            offset += self._layout.offsets[storage]
        placed = PlacedBuffer(
            in_arena=storage is not None,
            offset=offset,
            stride=buffer.stride,
            num_bytes=buffer.num_bytes,
        )
        number = self._numbers.setdefault(placed, len(self._numbers))
        if number >= NO_BUFFER:
            raise ConfigError(f"the network needs more than {NO_BUFFER} buffers on a device")
        return number

    def add_segments(self, unrolled: Unrolled) -> None:
        for segment in unrolled.segments:
            self.segments.append(
                PlacedSegment(
                    first=len(self.ops),
                    count=len(segment.ops),
                    micro_batch_size=segment.micro_batch_size,
                    phase=segment.phase,
                )
            )
            for op in segment.ops:
                named = [op.operands.get(o.name) for o in operation_table()[op.code]]
                numbers = [NO_BUFFER if b is None else self.number(b) for b in named]
                self.ops.append(pack_op(op, numbers))


def _initial_values(network: Network, parameters: Parameters) -> bytes:
    content = bytearray(parameters.value_bytes)
    tensors = network.trained_parameters()
    for name, parameter in parameters.by_name.items():
        data = to_bytes(in_device_order(tensors[name].detach()))
        content[parameter.values.offset : parameter.values.offset + len(data)] = data
    return bytes(content)


def to_bytes(values: Tensor) -> bytes:
    if values.dtype == torch.bfloat16:
        values = values.view(torch.int16)
    return np.ascontiguousarray(values.cpu().numpy()).tobytes()


def sha256_of_file(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
