"""The network that a device trains, built from its description and float weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.description.config import ConvConfig, NetworkConfig, check_network
from tinytl.description.method import Method, is_trained
from tinytl.description.plan import TrainedBits
from tinytl.engine.blocks import Block, Part, Stem, Tail
from tinytl.engine.layers import ConvUnit, TensorGetter, WeightBits
from tinytl.engine.lite_residual import LiteResidual
from tinytl.errors import ConfigError

_HEAD = "classifier.linear"
"""Where ofa's state dicts hold the classifier."""


class Network(nn.Module):
    """A ProxylessNAS or MobileNetV3 network whose frozen weights are stored in weight_bits.

    forward equals that of the ofa package's static network. Its parameters are the values that
    may be trained; set_trainable has been applied for the method.
    """

    def __init__(self, config: NetworkConfig, method: Method, weight_bits: WeightBits = 8) -> None:
        super().__init__()
        self.config = check_network(config)
        self.method = method
        self.weight_bits: WeightBits = weight_bits
        self.first_conv = self._conv_unit(config.first_conv)
        self.blocks = nn.ModuleList(
            nn.Identity()
            if block is None
            else Block(block, config.norm, method, weight_bits, config.padding)
            for block in config.blocks
        )
        final_expand = config.final_expand
        self.final_expand = None if final_expand is None else self._conv_unit(final_expand)
        self.feature_mix = self._conv_unit(config.feature_mix)
        self.classifier = nn.Linear(config.feature_mix.out_channels, config.num_classes)
        set_trainable(self, method)

    def _conv_unit(self, conv: ConvConfig) -> ConvUnit:
        return ConvUnit(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            method=self.method,
            weight_bits=self.weight_bits,
            stride=conv.stride,
            activation=conv.activation,
            norm=self.config.norm if conv.has_norm else None,
            padding=self.config.padding,
        )

    @property
    def device(self) -> torch.device:
        """Where it runs: Module.to moves it."""
        return self.classifier.bias.device

    @property
    def parts(self) -> list[Part]:
        """What a map passes, from images to features."""
        tail = (
            Tail(self.feature_mix, None)
            if self.final_expand is None
            else Tail(self.final_expand, self.feature_mix)
        )
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return [Stem(self.first_conv, self.config.normalization), *blocks, tail]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, 3, H, W): normalized float, or raw uint8. They
        are on the network's device.

        For prediction: no gradient is recorded. tinytl.engine.step trains.
        """
        return self.classify(self.features(images))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the classifier gets (N, F) of images as forward takes them."""
        x = images
        for part in self.parts:
            x = part.forward(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Logits of features (N, F)."""
        head = self.classifier
        return F.linear(features, head.weight.to(head.bias.dtype), head.bias)

    def store_trained(self, bits: TrainedBits) -> None:
        """Hold trained weights in float (32) or bfloat16 (16); biases and norms stay in float."""
        dtype = self.classifier.bias.dtype if bits == 32 else torch.bfloat16
        for parameter in self.trained_parameters().values():
            if parameter.dim() > 1:
                parameter.data = parameter.data.to(dtype)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the method updates, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def build_network(
    config: NetworkConfig,
    method: Method,
    state_dict: Mapping[str, Tensor] | None = None,
    *,
    weight_bits: WeightBits = 8,
    generator: torch.Generator | None = None,
) -> Network:
    """Build a network to train with method from float weights.

    state_dict: in the layout of the ofa package's static networks, with lite residuals under
    `blocks.N.lite_residual`. Batch norms are folded with their running statistics. Lite
    residuals that are missing, and a classifier that is missing or of another number of classes,
    start fresh from generator. state_dict None makes a randomly initialised network.
    Raises ConfigError for other missing, unknown or misshapen tensors.
    """
    network = Network(config, method, weight_bits)
    _initialise(network, generator)
    if state_dict is not None:
        _assign(network, state_dict)
    elif method is not Method.FULL:
        _randomize_frozen(network, generator)
    return network


@torch.no_grad()
def _initialise(network: Network, generator: torch.Generator | None) -> None:
    for module in network.modules():
        if isinstance(module, LiteResidual):
            module.reset(generator)
        elif isinstance(module, ConvUnit):
            if module.weight is not None:
                fan_out = module.weight.shape[0] * module.weight.shape[-1] ** 2 / module.groups
                module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
            if module.gain is not None:
                module.gain.fill_(1)
    bound = 1 / math.sqrt(network.classifier.in_features)
    network.classifier.weight.uniform_(-bound, bound, generator=generator)
    network.classifier.bias.zero_()


@torch.no_grad()
def _randomize_frozen(network: Network, generator: torch.Generator | None) -> None:
    for module in network.modules():
        if isinstance(module, ConvUnit) and module.frozen is not None:
            shape = module.frozen.weight.shape
            fan_out = shape[0] * shape[-1] ** 2 / module.groups
            weight = torch.empty(shape).normal_(0, math.sqrt(2 / fan_out), generator=generator)
            module.frozen.assign(weight, None)


def _assign(network: Network, state_dict: Mapping[str, Tensor]) -> None:
    unread = {key for key in state_dict if not key.endswith(".num_batches_tracked")}

    def take(name: str, shape: torch.Size) -> Tensor:
        if name not in state_dict:
            raise ConfigError(f"weights lack the tensor {name!r}")
        unread.discard(name)
        tensor = state_dict[name].float()
        if tensor.shape != shape:
            raise ConfigError(
                f"tensor {name!r} must have the shape {tuple(shape)} but has {tuple(tensor.shape)}"
            )
        if not tensor.isfinite().all():
            raise ConfigError(f"tensor {name!r} holds values that are not finite")
        return tensor

    network.first_conv.assign(take, "first_conv.conv", "first_conv.bn")
    for index, block in enumerate(network.blocks):
        if isinstance(block, Block):
            block.assign(take, f"blocks.{index}")
            prefix = f"blocks.{index}.lite_residual"
            given = {name for name in state_dict if name.startswith(f"{prefix}.")}
            if block.lite_residual is None:
                unread -= given
            elif given:
                _assign_parameters(block.lite_residual, take, prefix)
    if network.final_expand is not None:
        network.final_expand.assign(take, "final_expand_layer.conv", "final_expand_layer.bn")
    network.feature_mix.assign(take, "feature_mix_layer.conv", "feature_mix_layer.bn")
    head = {name for name in state_dict if name.startswith(f"{_HEAD}.")}
    bias = state_dict.get(f"{_HEAD}.bias")
    if head and (bias is None or len(bias) == network.config.num_classes):
        _assign_parameters(network.classifier, take, _HEAD)
    unread -= head
    if unread:
        raise ConfigError(f"weights hold unknown tensors: {sorted(unread)[:5]}")


def set_trainable(network: nn.Module, method: Method) -> None:
    """Set requires_grad of every parameter of the network as the method says."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trained(name, method))


@torch.no_grad()
def _assign_parameters(module: nn.Module, take: TensorGetter, prefix: str) -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(take(f"{prefix}.{name}", parameter.shape))
