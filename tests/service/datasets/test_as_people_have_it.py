"""Data as people have it: each kind of mishap is mended, told, or refused with what would do."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sqlalchemy import delete

from service.datasets import images
from service.datasets.containers.name_encoding import decode_names
from service.datasets.reporting_anew import report_anew
from service.datasets.store import get_contact_sheet, get_dataset, import_dataset
from service.errors import BrokenImagesError, DatasetError, NotFoundError
from service.record.db.database import Database
from service.record.db.models import ContactSheet, Dataset
from service.settings import Settings
from service.views.schemas import DatasetReport
from tests.service.datasets.uploads import Files, MakeZip, image_bytes, left_behind, refuse

Import = Callable[[Path], Dataset]
CASES = Path(__file__).parents[4] / "shared" / "cases"


@pytest.fixture
def add(settings: Settings, database: Database) -> Import:
    return lambda path: import_dataset(path, settings=settings, database=database)[0]


def report_of(dataset: Dataset) -> DatasetReport:
    return DatasetReport.model_validate(dataset.report)


def note(dataset: Dataset, words: str) -> str:
    """The one note that has these words."""
    (found,) = [one for one in report_of(dataset).notes if words in one]
    return found


def saved(image: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


# --- names


@pytest.mark.parametrize(
    ("codec", "names"),
    [
        ("cp932", ("猫", "犬")),
        ("cp932", ("ソファ", "表", "十字")),  # the second byte of some is a backslash
        ("gbk", ("猫", "狗")),
        ("gbk", ("正常", "缺陷")),
        ("cp950", ("蘋果", "香蕉")),
        ("cp949", ("고양이", "강아지")),
        ("cp866", ("кошка", "собака")),
        ("cp437", ("Größe", "café")),
        ("utf-8", ("猫", "Größe")),
    ],
)
def test_names_in_the_encoding_of_another_country(codec: str, names: tuple[str, ...]) -> None:
    paths = [f"{name}/{number}.png" for name in names for number in range(3)]
    assert decode_names([path.encode(codec) for path in paths]) == paths


@pytest.mark.parametrize("raw", [b"\xff\xfe\xfd.png", "ni\xf1o".encode("cp437"), b"\x94/1.png"])
def test_names_that_may_be_anything_are_refused(raw: bytes) -> None:
    with pytest.raises(DatasetError, match=r"encoding can't be told.*send the folder itself"):
        decode_names([b"cat/0.png", raw])


def test_no_image_is_lost_to_a_backslash_within_a_character(add: Import, tmp_path: Path) -> None:
    names = [f"{kind}/{name}.png" for kind in ("cat", "dog") for name in "ソ表能予十構貼"]
    path = tmp_path / "sjis.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"{name.split('/')[0]}/{number:02d}.png", image_bytes())
    data = path.read_bytes()
    for number, name in enumerate(names):  # names of the same length
        data = data.replace(f"/{number:02d}.png".encode(), name[3:].encode("cp932"))
    path.write_bytes(data)
    assert add(path).counts == {"train": {"cat": 7, "dog": 7}}


# --- pixels


def strokes(seed: int, mode: str = "RGBA") -> Image.Image:
    generator = random.Random(seed)
    image = Image.new(mode, (48, 48))
    ink = (0, 0, 0, 255) if mode == "RGBA" else (200, 200, 200)
    points = [(generator.randrange(48), generator.randrange(48)) for _ in range(4)]
    ImageDraw.Draw(image).line(points, fill=ink, width=4)
    return image


def test_a_drawing_on_transparency_is_seen(
    add: Import, make_zip: MakeZip, database: Database
) -> None:
    files = {f"{name}/{n}.png": saved(strokes(n)) for name in ("a", "b") for n in range(6)}
    dataset = add(make_zip({**files, "b/0.png": saved(strokes(99))}))
    assert "12 images with transparent parts" in note(dataset, "transparent")
    sheet = Image.open(io.BytesIO(get_contact_sheet(database, dataset.id, None)))
    tiles = np.asarray(sheet.convert("L"))
    assert tiles.max() > 240
    assert tiles.min() < 60


def test_blank_images_are_told(add: Import, make_zip: MakeZip, flat_files: Files) -> None:
    for number in range(3):
        flat_files[f"circle/blank{number}.png"] = saved(Image.new("L", (60, 60), 40 * number))
    dark = np.random.default_rng(0).integers(0, 4096, (60, 60)).astype(np.uint16)  # 12 bits of 16
    flat_files["circle/dark.png"] = saved(Image.fromarray(dark // 8))
    found = note(add(make_zip(flat_files)), "of one colour")
    assert found.startswith("4 images are of one colour all over, such as 'circle/blank0.png'")


def test_a_class_of_the_same_picture_is_told(
    add: Import, make_zip: MakeZip, flat_files: Files
) -> None:
    picture = strokes(7, "RGB")
    for number in range(9):
        flat_files[f"same/{number}.jpg"] = saved(picture.rotate(0), "JPEG") + bytes(number)
    dataset = add(make_zip(flat_files))
    assert "9 of 9 images of class 'same' look the same" in note(dataset, "look the same")


def test_different_pictures_are_not_called_the_same(
    add: Import, make_zip: MakeZip, flat_files: Files
) -> None:
    notes = report_of(add(make_zip(flat_files))).notes
    assert not any("the same" in one or "one colour" in one for one in notes)


@pytest.mark.parametrize(
    ("size", "fit", "loss"), [((64, 48), "crop", 0.25), ((64, 36), "squash", 0.4375)]
)
def test_the_fit_goes_by_what_a_crop_would_lose(
    add: Import,
    make_zip: MakeZip,
    database: Database,
    size: tuple[int, int],
    fit: str,
    loss: float,
) -> None:
    files = {f"{name}/{n}.png": image_bytes(size) for name in ("a", "b") for n in range(6)}
    dataset = add(make_zip(files))
    report = report_of(dataset)
    assert (report.fit, report.crop_loss) == (fit, pytest.approx(loss))
    assert f"({fit})" in note(dataset, f"{loss:.0%} of it")
    sheets = {one: get_contact_sheet(database, dataset.id, one) for one in ("crop", "pad")}
    assert sheets["crop"] != sheets["pad"]
    assert report.contact_sheet is not None
    assert report.contact_sheet.classes == {"a": 6, "b": 6}


def test_a_dataset_of_before_has_no_contact_sheet(
    database: Database, make_job: Callable[..., object]
) -> None:
    make_job(dataset="d1")
    with pytest.raises(NotFoundError, match="uploading it again makes it now"):
        get_contact_sheet(database, "d1", None)
    with pytest.raises(NotFoundError, match="no dataset 'd2'"):
        get_contact_sheet(database, "d2", None)


def test_a_dataset_of_an_earlier_version_is_reported_anew(
    settings: Settings, database: Database, add: Import, make_zip: MakeZip, flat_files: Files
) -> None:
    dataset = add(make_zip({**flat_files, "Thumbs.db": b"x"}))
    sheet = get_contact_sheet(database, dataset.id, "crop")
    with database.writing() as session:
        session.execute(delete(ContactSheet))
        row = session.get(Dataset, dataset.id)
        assert row is not None
        row.report = {"notes": [], "ignored_files": 1}
    assert report_anew(settings, database) == 1
    assert get_contact_sheet(database, dataset.id, "crop") == sheet
    again = get_dataset(database, dataset.id)
    assert again.report == dataset.report
    assert report_anew(settings, database) == 0
    assert left_behind(settings) == []


# --- files


@pytest.mark.parametrize(
    ("form", "suffix"), [("PPM", "ppm"), ("PPM", "pgm"), ("AVIF", "avif"), ("JPEG2000", "jp2")]
)
def test_formats_that_pillow_reads(add: Import, make_zip: MakeZip, form: str, suffix: str) -> None:
    mode = "L" if suffix == "pgm" else "RGB"
    files = {
        f"{name}/{n}.{suffix}": image_bytes(form=form, mode=mode)
        for name in ("a", "b")
        for n in range(5)
    }
    assert report_of(add(make_zip(files))).formats == {form: 10}


HEIC = b"\0\0\0\x18ftypheic" + bytes(200)


def test_heic_without_pillow_heif_says_how_to_go_on(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    message = refuse(make_zip({**flat_files, "circle/1.HEIC": HEIC}), settings, database)
    assert "pip install 'tinyfit[heic]', or convert it to JPEG" in message
    assert "remove" not in message


def test_all_broken_images_are_named_at_once_or_skipped(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    clean, _ = import_dataset(make_zip(flat_files), settings=settings, database=database)
    broken = {
        "circle/a.jpg": image_bytes((90, 90), form="JPEG")[:700],
        "square/b.jpg": b"",
        "square/c.jpg": b"<!DOCTYPE html><html>",
        "square/d.mov": b"\0\0\0\x18ftypqt  " + bytes(99),
        "e.png": image_bytes(),
    }
    archive = make_zip(flat_files | broken)
    with pytest.raises(BrokenImagesError) as caught:
        import_dataset(archive, settings=settings, database=database)
    assert left_behind(settings) == []
    assert set(caught.value.problems) == set(broken) - {"square/d.mov"}  # no image by its name
    message = str(caught.value)
    for words in ("4 images can't be used", "it is empty", "a web page", "not in a class folder"):
        assert words in message
    assert "--skip-broken" in message
    skipping = settings.model_copy(update={"skip_broken": True})
    skipped, is_new = import_dataset(archive, settings=skipping, database=database)
    assert (skipped.id, is_new) == (clean.id, False)
    assert "4 images skipped" in note(skipped, "skipped")
    assert "'circle/a.jpg' is damaged" in note(skipped, "skipped")


def test_too_few_are_left_without_the_broken_ones(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    skipping = settings.model_copy(update={"skip_broken": True})
    broken = {f"circle/{number}.png": b"" for number in range(2)}
    message = refuse(make_zip(flat_files | broken), skipping, database)
    assert "2 images can't be used, and without: class 'circle' has 4 training images" in message


def test_uploaded_again_a_dataset_is_reported_anew(
    add: Import, make_zip: MakeZip, flat_files: Files
) -> None:
    first = add(make_zip({**flat_files, "Thumbs.db": b"x"}))
    assert report_of(first).ignored_files == 1
    again = add(make_zip({**flat_files, "notes.txt": b"x", "circle/.DS_Store": b"x"}))
    assert again.id == first.id
    assert report_of(again).ignored_files == 2


# --- the cases themselves, where they are at hand

EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    "s01_transparent": {"train": {"circle": 40, "cross": 40}},
    "s02_sjis_class_names": {"train": {"猫": 8, "犬": 8}},
    "s02_sjis_files_dropped": {"train": {"cat": 11, "dog": 11}},
    "s03_roboflow": {
        "train": {"daisy": 8, "rose": 8},
        "val": {"daisy": 3, "rose": 3},
        "test": {"daisy": 3, "rose": 3},
    },
    "s05_edge_impulse": {"train": {"lamp": 8, "plant": 8}, "test": {"lamp": 3, "plant": 3}},
    "s06_images_and_csv": {"train": {"cat": 8, "dog": 8}},
    "s07_wide": {"train": {"left": 40, "right": 40}},
    "s08_ppm": {"train": {"00000": 8, "00001": 8}},
    "s08_pgm": {"train": {"s1": 8, "s2": 8}},
    **{
        name: {"train": {"cat": 8, "dog": 8}}
        for name in (
            *("s09_avif", "s10_synology", "s10_thumbs_lower_case", "s10_desktop_ini"),
            *("s10_icon_cr", "s10_takeout_sidecar", "s11_unlabelled_test"),
        )
    },
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_cases(add: Import, name: str) -> None:
    path = CASES / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    dataset = add(path)
    assert dataset.counts == EXPECTED[name]
    assert (report_of(dataset).fit == "squash") == (name == "s07_wide")
