"""What is trained: the methods, and the one function that decides for every parameter.

TinyTL paper, section 3 and table 2; the rules are those of the published code.
"""

from __future__ import annotations

from enum import StrEnum


class PeakMeaning(StrEnum):
    """What a training's peak is that of, and so what a memory limit binds."""

    PROCESS = "process"
    """The device trainer's whole process (tinytl.native)."""
    TORCH = "torch"
    """What torch's allocator hands out where the torch engine trains."""

    def describe(self) -> str:
        """To follow an amount of memory."""
        if self is PeakMeaning.PROCESS:
            return "for the whole process on the device"
        return "in torch's allocator"


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
    def without_lite_residual(self) -> Method:
        """What else it trains: where a network has no lite residual modules, that is all."""
        others = {Method.LITE_RESIDUAL: Method.HEAD, Method.LITE_RESIDUAL_BIAS: Method.BIAS}
        return others.get(self, self)

    @property
    def trains_last_lite_bias(self) -> bool:
        """The shift of a lite residual's last norm: idle where the block's own bias learns."""
        return self is self.LITE_RESIDUAL

    @property
    def trains_on_device(self) -> bool:
        """Whether the device trainer (tinytl.native) does it."""
        return self not in {self.NORM_HEAD, self.FULL}

    @property
    def peak_meaning(self) -> PeakMeaning:
        """Of trainings by it: the whole process, where the device trainer does it."""
        return PeakMeaning.PROCESS if self.trains_on_device else PeakMeaning.TORCH

    @property
    def trains_backbone(self) -> bool:
        return self is not self.HEAD


def is_trained(name: str, method: Method) -> bool:
    """Whether the method trains the parameter of this name (see tinytl.engine.network for the
    names)."""
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
