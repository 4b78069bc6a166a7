import pytest

from tinytl.errors import TinyTLError
from tinytl.units import format_bytes, format_count, parse_count, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64MB", 64_000_000),
        ("1.5GB", 1_500_000_000),
        ("8.2MB", 8_200_000),
        ("2.01 MB", 2_010_000),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), (90, 90), ("45s", 45), ("10m", 600), (" 1.5 h ", 5400), ("2H", 7200)],
)
def test_parse_duration(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1m", "10 parsecs", "1h30m", "0", "0.5s", "1d"])
def test_parse_duration_quotes_what_it_refuses(text):
    with pytest.raises(TinyTLError, match="duration") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20M", 20_000_000), ("8.2M", 8_200_000), ("1.5g", 1_500_000_000), ("500k", 500_000), (7, 7)],
)
def test_parse_count(text, expected):
    assert parse_count(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-5M", "20MB", "20 million", "0", "0.2", "1e6"])
def test_parse_count_quotes_what_it_refuses(text):
    with pytest.raises(TinyTLError, match="count") as caught:
        parse_count(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("count", "expected"), [(812, "812"), (1400, "1.4k"), (23_700_000, "23.7M"), (2e9, "2.0G")]
)
def test_format_count(count, expected):
    assert format_count(count) == expected
