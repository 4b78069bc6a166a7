"""What is trained: the methods, and the one function that decides for every parameter.

TinyTL paper, section 3 and table 2; the rules are those of the published code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytl.network import Network


class Method(StrEnum):
    """Which parameters a training updates. The head (classifier) always is."""

    HEAD = "head"
    BIAS = "bias"
    LITE_RESIDUAL = "lite_residual"
    LITE_RESIDUAL_BIAS = "lite_residual+bias"
    NORM_HEAD = "norm+head"
    FULL = "full"

    @property
    def trains_bias(self) -> bool:
        """Norm shifts, and the biases of squeeze-and-excite layers except for norm+head."""
        return self in {self.BIAS, self.LITE_RESIDUAL_BIAS, self.NORM_HEAD, self.FULL}

    @property
    def trains_gain(self) -> bool:
        """Norm gains of the main branch."""
        return self in {self.NORM_HEAD, self.FULL}

    @property
    def trains_squeeze_bias(self) -> bool:
        return self in {self.BIAS, self.LITE_RESIDUAL_BIAS, self.FULL}

    @property
    def trains_weights(self) -> bool:
        """Convolution weights of the main branch."""
        return self is self.FULL

    @property
    def uses_lite_residual(self) -> bool:
        return self in {self.LITE_RESIDUAL, self.LITE_RESIDUAL_BIAS}

    @property
    def trains_last_lite_bias(self) -> bool:
        """The shift of a lite residual's last norm: idle where the block's own bias learns."""
        return self is self.LITE_RESIDUAL

    @property
    def trains_backbone(self) -> bool:
        return self is not self.HEAD


def set_trainable(network: Network, method: Method) -> None:
    """Set requires_grad of every parameter of the network as the method says."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trained(name, method))


def is_trained(name: str, method: Method) -> bool:
    """Whether the method trains the parameter of this name (see tinytl.network for the names)."""
    if name.startswith("classifier."):
        return True
    if ".lite_residual." in name:
        is_last_bias = name.endswith(".final_bn.bias")
        return method.uses_lite_residual and (method.trains_last_lite_bias or not is_last_bias)
    if ".squeeze_excite." in name:
        return method.trains_squeeze_bias if name.endswith(".bias") else method.trains_weights
    if name.endswith(".gain"):
        return method.trains_gain
    if name.endswith(".bias"):
        return method.trains_bias
    return method.trains_weights
