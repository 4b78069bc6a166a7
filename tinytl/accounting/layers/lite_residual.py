"""What a lite residual module takes while it runs, written down event by event, without torch.

It mirrors tinytl.engine.lite_residual: a change there that allocates otherwise is a change here.
"""

from __future__ import annotations

from tinytl.accounting.layers.ledger import FLOAT_BYTES, Ledger, Pass
from tinytl.accounting.layers.operations import (
    SCRATCH_BYTES,
    Parameters,
    Setting,
    accumulate_gradient,
    im2col_bytes,
    norm_backward_workspace,
    norm_workspace,
    round_up,
)
from tinytl.description.config import LiteResidualConfig, conv_size


class LiteResidualCost:
    """A LiteResidual as ledger entries; size: side of the block's input."""

    def __init__(self, module: LiteResidualConfig, setting: Setting, size: int) -> None:
        self.setting = setting
        ratio = module.downsample_ratio
        pooled_size = 1 if ratio is None else max(1, size // min(ratio, size))
        self._end_size = conv_size(pooled_size, module.kernel_size, module.stride)
        self._mid, self._out = module.mid_channels, module.out_channels
        self.pooled = setting.map_bytes(module.in_channels, pooled_size)
        self._narrow = setting.map_bytes(self._mid, self._end_size)
        self._end = setting.map_bytes(self._out, self._end_size)
        self._conv1_values = (
            module.in_channels // module.groups * self._mid * module.kernel_size**2
        )
        self._conv2_values = self._mid * self._out
        weight = self._conv1_values * FLOAT_BYTES
        self._conv1_turned = weight
        self._conv1_spread = 0
        if module.stride != 1:
            self._conv1_spread = setting.map_bytes(self._mid, pooled_size)
        self._conv1_workspace = weight + _blocked_bytes(module, widest=True) + SCRATCH_BYTES
        self._gradient_workspace = (
            2 * weight + _blocked_bytes(module, widest=False) + SCRATCH_BYTES
        )
        if module.groups == 1 and setting.num_images == 1:
            columns = max(
                im2col_bytes(self.pooled, module.kernel_size, module.stride),
                im2col_bytes(
                    setting.map_bytes(self._mid, pooled_size), module.kernel_size, stride=1
                ),
            )
            self._conv1_workspace += columns
            self._gradient_workspace += columns
        self._padded = 0
        self._conv1_copy = weight
        if pooled_size == 1:  # the kernel's middle alone learns
            self._gradient_workspace = 0
            self._conv1_copy = weight // module.kernel_size**2
        elif pooled_size < module.kernel_size:
            padded_size = pooled_size + 2 * (module.kernel_size // 2)
            self._padded = setting.map_bytes(module.in_channels, padded_size)
        if module.kernel_size == 1:  # then maps are copied too
            self._conv1_workspace += self.pooled + self._narrow
            self._gradient_workspace += self.pooled + self._narrow
        self._learns = setting.method.uses_lite_residual
        self._last_bias_learns = setting.method.trains_last_lite_bias
        halves = setting.trained_bits == 16 and self._learns
        self._wide1 = self._conv1_values * FLOAT_BYTES if halves else 0
        self._wide2 = self._conv2_values * FLOAT_BYTES if halves else 0

    def count(self, parameters: Parameters) -> None:
        for values in (self._conv1_values, self._conv2_values):
            parameters.add(values, trained=self._learns, is_matrix=True)
        for values in (self._mid, self._mid, self._out):
            parameters.add(values, trained=self._learns)
        parameters.add(self._out, trained=self._learns and self._last_bias_learns)

    def _statistics(self, channels: int) -> int:
        return self.setting.num_images * channels

    def _run_narrow(self, ledger: Ledger) -> None:
        """conv1, norm and ReLU; leaves the norm's input, output and statistics held."""
        ledger.allocate(self._wide1)
        ledger.transient(self._narrow, workspace=self._conv1_workspace)
        ledger.free(self._wide1)
        workspace = norm_workspace(self._statistics(self._mid), self._end_size)
        ledger.transient(2 * self._narrow, workspace=workspace)
        ledger.allocate(2 * self._narrow + self._statistics(self._mid))

    def forward(self, ledger: Ledger, out_bytes: int) -> None:
        """The pooled input is held; leaves the output, out_bytes, held."""
        self._run_narrow(ledger)
        ledger.free(self._narrow + self._statistics(self._mid))
        ledger.allocate(self._wide2 + self._end)
        ledger.free(self._wide2 + self._narrow)
        ledger.allocate(self._end + self._statistics(self._out))
        ledger.free(self._end + self._statistics(self._out))
        if out_bytes != self._end:
            ledger.allocate(out_bytes)
            ledger.free(self._end)

    def backward(self, ledger: Ledger, kind: Pass, out_bytes: int, *, needs_input: bool) -> None:
        """The gradient of the output and the pooled input are held and stay so; leaves the
        gradient of the pooled input held."""
        narrow, end = self._narrow, self._end
        self._run_narrow(ledger)
        ledger.allocate(self._wide2 + end)
        ledger.free(self._wide2)
        statistics = self._statistics(self._out)
        ledger.allocate(end + statistics)
        ledger.free(end)
        upsampled = end if out_bytes != end else 0
        ledger.allocate(upsampled)
        self._norm_backward(ledger, kind, self._out, end, self._last_bias_learns)
        ledger.free(upsampled + end)  # of the norm its input; its statistics stay
        ledger.allocate(self._wide2 + narrow)
        if self._learns:
            ledger.allocate(self._conv2_values * FLOAT_BYTES)
            accumulate_gradient(ledger, self.setting, kind, self._conv2_values, is_matrix=True)
        ledger.free(self._wide2)
        ledger.free(narrow + end)  # the rectified map; the gradient of the second convolution
        self._norm_backward(ledger, kind, self._mid, narrow, True)
        ledger.free(2 * narrow)
        self._conv1_backward(ledger, kind, needs_input=needs_input)
        ledger.free(narrow + statistics + self._statistics(self._mid))

    def _norm_backward(
        self, ledger: Ledger, kind: Pass, channels: int, y: int, bias_learns: bool
    ) -> None:
        workspace = norm_backward_workspace(self._statistics(channels), self._end_size)
        ledger.transient(y, workspace=workspace)
        ledger.allocate(y + 2 * channels * FLOAT_BYTES)
        for learns in (True, bias_learns):
            if self._learns and learns:
                accumulate_gradient(ledger, self.setting, kind, channels)
            else:
                ledger.free(channels * FLOAT_BYTES)

    def _conv1_backward(self, ledger: Ledger, kind: Pass, *, needs_input: bool) -> None:
        ledger.allocate(self._wide1)
        if needs_input:
            beside = self._conv1_turned + self._conv1_spread
            ledger.transient(beside + self.pooled, workspace=self._conv1_workspace)
            ledger.allocate(self.pooled)
        weight = self._conv1_values * FLOAT_BYTES
        if self._learns:
            ledger.transient(self._padded + weight, workspace=self._gradient_workspace)
            ledger.transient(weight + self._conv1_copy)
            ledger.allocate(weight)
            accumulate_gradient(ledger, self.setting, kind, self._conv1_values, is_matrix=True)
        ledger.free(self._wide1)


def _blocked_bytes(module: LiteResidualConfig, *, widest: bool) -> int:
    """The group convolution's weight with each group's channels filled up to oneDNN's blocks.

    The blocks are of 16 channels; widest: outputs in blocks of 32, which depends on the maps.
    """
    ins = round_up(module.in_channels // module.groups, 16)
    outs = round_up(module.mid_channels // module.groups, 16)
    if widest and outs > 32:
        outs = round_up(outs, 32)
    return module.groups * ins * outs * module.kernel_size**2 * FLOAT_BYTES
