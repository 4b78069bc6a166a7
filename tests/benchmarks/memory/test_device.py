"""The device benchmark's rows and picture, on made-up measurements."""

from dataclasses import asdict, replace
from xml.etree import ElementTree

from benchmarks.memory.device import Cost, Row, processes_to_draw
from benchmarks.memory.picture import picture

_MB = 10**6
ROW = Row(
    name="batch 8",
    plan="at once",
    predicted_bytes=11 * _MB,
    arena_bytes=8 * _MB,
    trainer=Cost(peak_bytes=10 * _MB, step_seconds=0.25),
    contracted=Cost(peak_bytes=10 * _MB, step_seconds=0.2),
    engine=Cost(peak_bytes=100 * _MB, step_seconds=0.5),
    stock=Cost(peak_bytes=400 * _MB, step_seconds=0.3),
    over_engine=0.5,
    over_stock=0.83,
)


def test_a_row_is_kept_and_comes_back():
    for row in (ROW, replace(ROW, stock=None, over_stock=None)):
        assert Row.from_dict(asdict(row)) == row
        assert len(row.cells) == len(ROW.cells)


def test_picture_draws_processes_to_scale():
    others = [replace(ROW, name="batch 1", stock=None), replace(ROW, name="bias, batch 1")]
    found = processes_to_draw([ROW, *others])
    assert [one.name for one in found] == ["batch 8"]
    root = ElementTree.fromstring(picture(found))
    widths = {
        rect.get("class"): float(rect.get("width", 0))
        for rect in root
        if rect.get("height") == "20"
    }
    assert widths["stock"] == 4 * widths["python"] > 0
    assert abs(widths["python"] - 10 * widths["device"]) < 0.6
    texts = [element.text for element in root.iter() if element.get("class", "").endswith("value")]
    assert texts == ["400 MB", "100 MB", "10.0 MB"]
