import numpy as np
import pytest
import torch
from PIL import Image

from tinytl.engine.ops.normalize import normalize
from tinytl.errors import CancelledError, DataError
from tinytl.training.data import (
    Augmentation,
    ImageStore,
    Sample,
    ingest,
    load_image,
    split_samples,
)


def _save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def _samples(tmp_path, count, split="train"):
    return [
        Sample(path=tmp_path / f"{split}{i}.png", label=i % 2, split=split) for i in range(count)
    ]


def test_images_stand_upright_and_keep_their_centre(tmp_path):
    """A photo lying on its side, its left half red: upright, that is the top half."""
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:, :45, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    path = _save(tmp_path / "photo.png", pixels, exif=exif)
    square = load_image(path, 30)
    assert square.shape == (3, 30, 30)
    assert square[0, :13].min() > 250
    assert square[0, 17:].max() < 5


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16))
    else:
        image = Image.new("RGB", (20, 20), (128, 128, 128)).convert(mode)
    path = tmp_path / ("image.tif" if mode in {"CMYK", "I;16"} else "image.png")
    image.save(path)
    square = load_image(path, 10)
    assert square.dtype == np.uint8
    assert square.shape == (3, 10, 10)
    if mode == "I;16":
        assert abs(int(square.mean()) - 156) <= 1


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0no tags"])
def test_an_image_whose_exif_is_damaged_is_taken_as_it_lies(tmp_path, exif):
    pixels = np.full((20, 20, 3), 128, dtype=np.uint8)
    path = _save(tmp_path / "photo.png", pixels, exif=exif)
    assert (load_image(path, 10) == 128).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(tmp_path, dtype):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.ones((20, 20), dtype=dtype)).save(path)
    with pytest.raises(DataError, match=r"'deep\.tif': it has 32 bits a pixel"):
        load_image(path, 10)


def test_an_orientation_is_read_beside_damaged_tags(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0128] = 2
    damaged = bytearray(exif.tobytes())
    at = damaged.index(b"\x01\x28\x00\x03")
    damaged[at + 3] = 2  # a resolution unit that is text
    pixels = np.zeros((60, 60, 3), dtype=np.uint8)
    pixels[:, :30] = 255
    square = load_image(_save(tmp_path / "photo.png", pixels, exif=bytes(damaged)), 30)
    assert square[:, :13].min() > 250
    assert square[:, 17:].max() < 5


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_damaged_pixels_are_told(tmp_path, place):
    noise = np.random.default_rng(0).integers(256, size=(60, 80, 3), dtype=np.uint8)
    path = _save(tmp_path / "photo.png", noise)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"photo\.png"):
        load_image(path, 30)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n broken"])
def test_an_undecodable_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"can't decode image 'broken\.png'"):
        load_image(path, 10)


def test_missing_splits_are_filled_per_class(tmp_path):
    samples = _samples(tmp_path, 20)
    filled = split_samples(samples, seed=3)
    for split, expected in (("test", 2), ("val", 2), ("train", 6)):
        for label in (0, 1):
            found = [s for s in filled if s.split == split and s.label == label]
            assert len(found) == expected
    assert filled == split_samples(samples, seed=3)
    assert filled != split_samples(samples, seed=4)
    assert [s.path for s in filled] == [s.path for s in samples]


def test_however_much_is_held_out_one_image_of_each_class_stays(tmp_path):
    samples = _samples(tmp_path, 6) + _samples(tmp_path, 2, "val")
    filled = split_samples(samples, seed=0, test_fraction=0.9)
    assert sorted(s.label for s in filled if s.split == "test") == [0, 0, 1, 1]
    assert sorted(s.label for s in filled if s.split == "train") == [0, 1]


def test_splits_that_exist_are_left_alone(tmp_path):
    samples = _samples(tmp_path, 10) + _samples(tmp_path, 4, "test") + _samples(tmp_path, 4, "val")
    assert split_samples(samples, seed=0) == samples


def test_too_few_images_to_split_are_told(tmp_path):
    with pytest.raises(DataError, match="class number 1 has 1 training images left"):
        split_samples(_samples(tmp_path, 3), seed=0)


def test_ingest_leaves_nothing_behind_when_it_fails(tmp_path, store):
    samples = [
        Sample(path=tmp_path / f"{i}.png", label=0, split=split)
        for i, split in enumerate(("train", "val", "test"))
    ]
    target = tmp_path / "out"
    with pytest.raises(CancelledError):
        ingest(samples, ["a", "b"], target, image_size=8, should_stop=lambda: True)
    (tmp_path / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"'1\.png'"):
        ingest(samples, ["a", "b"], target, image_size=8)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="no images in its val split"):
        ingest(_samples(tmp_path, 4), ["a", "b"], tmp_path / "out", image_size=8)


def test_a_store_is_opened_as_it_was_written(store):
    assert store.classes == ("red", "green")
    assert [len(store.split(name)) for name in ("train", "val", "test")] == [12, 4, 4]
    assert store.split("train").labels.tolist() == [0] * 6 + [1] * 6
    batch = store.split("train").batch(range(12), 48)
    assert batch.dtype == torch.uint8
    red_over_green = (batch[:, 0].float().mean((1, 2)) > batch[:, 1].float().mean((1, 2))).tolist()
    assert red_over_green == [True] * 6 + [False] * 6


def test_something_else_is_no_store(tmp_path):
    with pytest.raises(DataError, match="is no image store"):
        ImageStore.open(tmp_path)


def test_augmentation_depends_on_seed_and_image_alone(store):
    split, augmentation = store.split("train"), Augmentation(min_crop_scale=0.3)
    both = split.augmented_batch([3, 5], 32, augmentation, (0, 1))
    alone = split.augmented_batch([5], 32, augmentation, (0, 1))
    assert both.shape == (2, 3, 32, 32)
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(alone, split.augmented_batch([5], 32, augmentation, (0, 2)))


def test_no_flip_where_none_is_wanted(store):
    split = store.split("train")
    plain = Augmentation(min_crop_scale=1, horizontal_flip=False)
    square = [split.augmented_batch([0], 48, plain, (0, epoch)) for epoch in range(8)]
    mirrored = split.batch([0], 48).flip(3)
    assert not any(torch.equal(image, mirrored) for image in square)


def test_half_of_the_images_are_flipped_where_that_is_wanted(store):
    split = store.split("train")
    augmentation = Augmentation(min_crop_scale=1)
    plain = Augmentation(min_crop_scale=1, horizontal_flip=False)
    flipped = 0
    for epoch in range(20):
        image = split.augmented_batch([0], 48, augmentation, (0, epoch))
        same = split.augmented_batch([0], 48, plain, (0, epoch))
        assert torch.equal(image, same) or torch.equal(image, same.flip(3))
        flipped += not torch.equal(image, same)
    assert 3 <= flipped <= 17


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_a_crop_scale_out_of_range_is_quoted(value):
    with pytest.raises(DataError, match=str(value)):
        Augmentation(min_crop_scale=value)


def test_normalization_is_that_of_the_pretraining():
    white = normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(white[0, :, 0, 0], expected)
