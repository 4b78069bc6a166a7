"""How a picture becomes a square."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tinytl.errors import DataError
from tinytl.squares import FITS, Squaring, load_image, to_square

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def wide() -> Image.Image:
    """Red, green and blue from left to right, three times as wide as high."""
    image = Image.new("RGB", (96, 32), GREEN)
    image.paste(RED, (0, 0, 32, 32))
    image.paste(BLUE, (64, 0, 96, 32))
    return image


def colours(square: np.ndarray) -> set[str]:
    names = {"red": RED, "green": GREEN, "blue": BLUE}
    pixels = square.reshape(3, -1).T.astype(int)
    return {name for name, rgb in names.items() if (np.abs(pixels - rgb).sum(1) < 40).any()}


def test_what_each_fit_shows() -> None:
    shown = {fit: to_square(wide(), 48, Squaring(fit=fit)) for fit in FITS}
    assert {fit: square.shape for fit, square in shown.items()} == dict.fromkeys(FITS, (3, 48, 48))
    assert colours(shown["crop"]) == {"green"}
    assert colours(shown["pad"]) == colours(shown["squash"]) == {"red", "green", "blue"}
    assert (shown["pad"][:, 0] == np.array([[124], [116], [104]])).all()  # the ground above
    assert colours(shown["squash"][:, :2]) == {"red", "green", "blue"}  # all of it is picture


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1)])
def test_a_line_becomes_a_square_too(fit, size) -> None:  # type: ignore[no-untyped-def]
    assert to_square(Image.new("RGB", size, RED), 48, Squaring(fit=fit)).shape == (3, 48, 48)


def test_crop_is_what_is_done_where_nothing_is_said() -> None:
    np.testing.assert_array_equal(to_square(wide(), 48), to_square(wide(), 48, Squaring()))


def drawing(colour: tuple[int, int, int], mode: str) -> Image.Image:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((10, 10, 29, 29), fill=(*colour, 255))
    if mode == "P":
        palette = image.convert("RGB").quantize(4)
        palette.info["transparency"] = palette.getpixel((0, 0))
        return palette
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("colour", "ground"), [((0, 0, 0), 255), ((255, 255, 255), 0)])
def test_drawings_on_transparency_stay_visible(
    mode: str, colour: tuple[int, int, int], ground: int
) -> None:
    """Whatever colour lies below what is transparent: here it is black."""
    square = to_square(drawing(colour, mode), 40)
    assert (square[:, 0, 0] == ground).all()
    assert (square[:, 20, 20] == colour[0]).all()


def test_a_transparent_colour_of_a_palette() -> None:
    square = to_square(drawing((0, 0, 200), "P"), 40)
    assert (square[:, 0, 0] == 255).all()


def test_colours_and_half_transparency_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 128))
    np.testing.assert_allclose(to_square(image, 8)[:, 4, 4], [227, 127, 127], atol=1)


def test_before_there_was_a_choice_transparency_was_dropped() -> None:
    recorded = Squaring.recorded({"image_size": 40})
    assert recorded == Squaring(fit="crop", transparency="dropped")
    image = Image.new("RGBA", (8, 8), (0, 9, 0, 0))
    assert (to_square(image, 8, recorded)[:, 4, 4] == [0, 9, 0]).all()
    assert Squaring.recorded({"fit": "pad", "transparency": "composited"}) == Squaring(fit="pad")


def test_what_is_no_fit_is_quoted() -> None:
    with pytest.raises(DataError, match="fit must be one of crop, pad, squash but got 'zoom'"):
        Squaring(fit="zoom")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="transparency must be one of"):
        Squaring.recorded({"transparency": 1})


def test_a_16_bit_pgm_is_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pixels = np.full((9, 9), 40_000, dtype=">u2")
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 9 9 65535\n" + pixels.tobytes())
    assert (load_image(path, 8) == 40_000 // 256).all()


def test_a_heic_photo_is_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("pillow_heif").register_heif_opener()
    stream = io.BytesIO()
    wide().save(stream, "HEIF", quality=95)
    (tmp_path / "photo.heic").write_bytes(stream.getvalue())
    assert colours(load_image(tmp_path / "photo.heic", 32, Squaring(fit="squash"))) >= {"red"}
