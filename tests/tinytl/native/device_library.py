"""The trainer's kernels and steps, called from Python."""

import ctypes as ct

import numpy as np
import torch

from tinytl.native.formats.program_file import PORTS, read_program
from tinytl.native.unroll.parameters import Parameters, from_device_order

PACKED_FLOATS = 32 * 1024
INT8, FLOAT, BFLOAT16 = 0, 1, 2


def pointer(array):
    """Of a numpy array or tensor; None is NULL."""
    if array is None:
        return None
    return array.data_ptr() if isinstance(array, torch.Tensor) else array.ctypes.data


def aligned(num_bytes, fill=0):
    """Bytes that begin at a multiple of 64."""
    content = np.full(num_bytes + 64, fill, np.uint8)
    start = -content.ctypes.data % 64
    return content[start : start + num_bytes]


class Epilogue(ct.Structure):
    _fields_ = (
        ("bias", ct.c_void_p),
        ("addend", ct.c_void_p),
        ("limit", ct.c_float),
        ("bits", ct.c_void_p),
        ("mask", ct.c_void_p),
        ("column_sums", ct.c_void_p),
        ("bits_pitch", ct.c_size_t),
        ("bits_column", ct.c_size_t),
    )


class Matrix(ct.Structure):
    _fields_ = (
        ("values", ct.c_void_p),
        ("kind", ct.c_int),
        ("turned", ct.c_int),
        ("pitch", ct.c_size_t),
        ("scale", ct.c_void_p),
    )


class Taps(ct.Structure):
    _fields_ = (("values", ct.c_void_p), ("scale", ct.c_void_p), ("pitch", ct.c_size_t))


def _integers(*names):
    class Numbers(ct.Structure):
        _fields_ = tuple((name, ct.c_int) for name in names)

    return Numbers


class DepthwiseShape(ct.Structure):
    _fields_ = (
        *((name, ct.c_int) for name in ("images", "channels", "in_size", "out_size", "kernel")),
        *((name, ct.c_int) for name in ("stride", "pad_top", "pad_left")),
        *((name, ct.c_size_t) for name in ("x_pitch", "y_pitch")),
    )


ConvolutionShape = _integers(
    *("images", "in_channels", "out_channels", "groups", "in_size", "out_size", "kernel"),
    *("stride", "pad_top", "pad_left", "column_rows"),
)


class MeanShape(ct.Structure):
    _fields_ = (
        *((name, ct.c_int) for name in ("images", "positions", "channels")),
        ("pitch", ct.c_size_t),
    )


class Pooled(ct.Structure):
    _fields_ = (
        *((name, ct.c_int) for name in ("images", "positions", "in_channels", "out_channels")),
        ("width", ct.c_int),
        *((name, ct.c_void_p) for name in ("weights", "scale")),
    )


ResizeShape = _integers("images", "channels", "in_size", "out_size")
Crop = _integers("top", "left", "height", "width")


class Norm(ct.Structure):
    _fields_ = (
        *((name, ct.c_int) for name in ("images", "positions", "channels")),
        *((name, ct.c_float) for name in ("limit", "eps")),
        *((name, ct.c_void_p) for name in ("gain", "bias")),
    )


class AdamStep(ct.Structure):
    _fields_ = (
        *((name, ct.c_float) for name in ("rate", "root_factor")),
        *((name, ct.c_uint32) for name in ("seed", "step")),
    )


class AdamTensor(ct.Structure):
    _fields_ = (
        ("count", ct.c_size_t),
        ("number", ct.c_uint32),
        ("codes", ct.c_int),
        ("is_bfloat16", ct.c_int),
        *(
            (n, ct.c_void_p)
            for n in ("values", "first", "second", "first_scales", "second_scales")
        ),
    )


class Library:
    """call(name, ...) calls a function: arrays and tensors go by address, structures by
    reference, numbers of Python as int."""

    def __init__(self, path):
        self._library = ct.CDLL(str(path))

    def call(self, name, *arguments, returns=None):
        function = getattr(self._library, name)
        function.restype = returns
        return function(*map(_argument, arguments))


def _argument(value):
    if value is None or isinstance(value, torch.Tensor | np.ndarray):
        return ct.c_void_p(pointer(value))
    if isinstance(value, ct.Structure):
        return ct.byref(value)
    if isinstance(value, float):
        return ct.c_double(value)
    return ct.c_int(value) if isinstance(value, int) else value


_LOAD = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_int, ct.c_int, ct.c_void_p, ct.c_void_p)


class Device:
    """A program at work, its arena filled with junk before."""

    def __init__(self, library, content):
        self._library = library
        self.program = read_program(content)
        numbers = self.program.numbers
        self.arena = aligned(numbers["arena_bytes"], fill=0x7F)
        self._content = aligned(len(content))
        self._content[:] = np.frombuffer(content, np.uint8)
        self._trainer = aligned(1 << 13)
        wrong = library.call(
            "open_trainer",
            self._trainer,
            self._content,
            ct.c_size_t(self.program.mapped_bytes),
            self.arena,
            ct.c_size_t(len(self.arena)),
            returns=ct.c_char_p,
        )
        assert wrong is None, wrong
        values = np.frombuffer(self.program.section("values"), np.uint8)
        self.arena[: len(values)] = values
        library.call("reset_state", self._trainer)

    def _port(self, name, content):
        address = self._library.call("port", self._trainer, PORTS.index(name), returns=ct.c_void_p)
        ct.memmove(address, content.ctypes.data, content.nbytes)

    def step(self, images, labels, keep=None, learning_rate=1e-3):
        """Of uint8 (N, 3, H, W). The sum of the losses."""
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))

        @_LOAD
        def load(context, first, count, to, scratch):
            part = rows[first : first + count]
            ct.memmove(to, part.ctypes.data, part.nbytes)

        self._library.call("set_images", self._trainer, load, None)
        self._port("train_labels", labels.astype(np.uint16))
        if keep is not None:
            self._port("train_keep", np.packbits(keep, axis=1, bitorder="little"))
        return self._library.call(
            "train_step", self._trainer, len(images), learning_rate, returns=ct.c_double
        )

    def logits(self, image):
        self._port("evaluate_images", np.ascontiguousarray(image.transpose(1, 2, 0)))
        found = self._library.call("evaluate_image", self._trainer, returns=ct.POINTER(ct.c_float))
        return np.ctypeslib.as_array(found, (self.program.numbers["num_classes"],)).copy()

    def gradients(self, network):
        """Those of the first step: a tenth of each is in its first moment of 32 bits."""
        found = {}
        for name, parameter in Parameters(network, 32, reserved_classes=0).by_name.items():
            at = parameter.first.offset
            moment = self.arena[at : at + 4 * parameter.count].view(np.float32)
            gradient = torch.from_numpy(moment.astype(np.float64)) / float(np.float32(0.1))
            found[name] = from_device_order(gradient, parameter.shape)
        return found
