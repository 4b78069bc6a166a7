import pytest

from tinytl.errors import TinyTLError
from tinytl.units import format_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64MB", 64_000_000),
        ("1.5GB", 1_500_000_000),
        ("512KiB", 524_288),
        ("2 mib", 2_097_152),
        ("1000", 1000),
        (1000, 1000),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_parse_size(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "MB", "-5MB", "5 apples", "1e9", "0", "0.4", "5MB5", "1" * 400 + ".5GB"]
)
def test_parse_size_quotes_what_it_refuses(text):
    with pytest.raises(TinyTLError, match="size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("num_bytes", "expected"), [(812, "812 B"), (1400, "1.4 kB"), (23_700_000, "23.7 MB")]
)
def test_format_bytes(num_bytes, expected):
    assert format_bytes(num_bytes) == expected
