"""The way back: what a device has learned becomes a bundle again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinytl.engine.network import Network
from tinytl.errors import BundleError
from tinytl.native.formats.state_file import DeviceState, read_state
from tinytl.native.program import sha256_of_file
from tinytl.native.unroll.parameters import Parameter, Parameters, from_device_order
from tinytl.training.bundle import BundleInfo, load, save_bundle


def import_state(path: Path, bundle_path: Path, output: Path) -> tuple[DeviceState, BundleInfo]:
    """Write the bundle that the device's program was made of, with what the state has learned;
    classes that were added on the device are in it.

    Raises BundleError where the program was made of another bundle.
    """
    state, bundle = read_state(path), load(bundle_path)
    found = sha256_of_file(bundle_path.read_bytes())
    if found != state.bundle_sha256:
        raise BundleError(
            f"{path.name} was learned from the bundle with the SHA-256 "
            f"{state.bundle_sha256.hex()}, but {bundle_path.name} has {found.hex()}"
        )
    classes = (*bundle.classes, *state.added_classes)
    network = _with_classes(bundle.network, len(classes))
    layout = Parameters(
        bundle.network, bundle.plan.optimizer_bits, reserved_classes=state.reserved_classes
    )
    assign_values(network, layout, state.payload)
    report = {
        **bundle.report,
        "device_training": {
            "epochs": state.epochs,
            "train_loss": state.last_loss,
            "accuracy": state.last_accuracy,
        },
    }
    info = save_bundle(
        output,
        network,
        resolution=bundle.resolution,
        image_size=bundle.image_size,
        plan=bundle.plan,
        classes=classes,
        report=report,
        card=_card(state, classes),
    )
    return state, info


@torch.no_grad()
def assign_values(network: Network, layout: Parameters, payload: bytes) -> None:
    """Give a network what a state of this layout has learned. Raises BundleError where values are
    not finite."""
    for name, tensor in network.trained_parameters().items():
        tensor.copy_(_values(payload, layout.by_name[name], tensor))


def _with_classes(network: Network, num_classes: int) -> Network:
    """The network with a head for so many classes, whose new rows are yet to be filled."""
    if num_classes == network.config.num_classes:
        return network
    wider = Network(
        replace(network.config, num_classes=num_classes), network.method, network.weight_bits
    )
    head = {"classifier.weight", "classifier.bias"}
    kept = {name: value for name, value in network.state_dict().items() if name not in head}
    wider.load_state_dict(kept, strict=False, assign=True)
    for name, parameter in wider.named_parameters():
        parameter.requires_grad_(name in network.trained_parameters())
        if name in head:
            dtype = network.state_dict()[name].dtype
            parameter.data = parameter.data.to(dtype)
    return wider


def _values(payload: bytes, parameter: Parameter, tensor: Tensor) -> Tensor:
    """What the device has in place of a tensor."""
    kind = np.int16 if parameter.is_bfloat16 else np.float32
    values = torch.from_numpy(
        np.frombuffer(payload, kind, tensor.numel(), parameter.values.offset).copy()
    )
    if parameter.is_bfloat16:
        values = values.view(torch.bfloat16)
    if not values.isfinite().all():
        raise BundleError(f"the state holds values of {parameter.name!r} that are not finite")
    return from_device_order(values, tuple(tensor.shape))


def _card(state: DeviceState, classes: tuple[str, ...]) -> str:
    return (
        f"# Trained on a device\n\n{state.epochs} epochs on the device; the last one's loss was "
        f"{state.last_loss:.4f}, its accuracy there {state.last_accuracy:.4f}.\n\n"
        f"Classes: {', '.join(classes)}\n"
    )
