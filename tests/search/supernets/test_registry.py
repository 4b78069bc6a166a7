import json
import os
import socket
import subprocess

import pytest
import torch

from search.errors import SupernetError
from search.supernets import registry

SMALL_PROXYLESS = "ofa_proxyless_d23_e34_k35_w0.2"
OFFICIAL = "ofa_proxyless_d234_e346_k357_w1.3"


@pytest.fixture
def published(file_server, monkeypatch, elastic_network, official_format):
    """A loopback server with a file in the official format, whose blob id is expected."""
    url, folder = file_server
    path = folder / OFFICIAL
    torch.save({"state_dict": official_format(elastic_network(SMALL_PROXYLESS))}, path)
    monkeypatch.setitem(registry.OFFICIAL_BLOB_IDS, OFFICIAL, registry.git_blob_id(path))
    return url, path


def test_blob_id_is_git_s(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"what is up, doc?")
    # The example of the Pro Git book, chapter 10.2.
    assert registry.git_blob_id(path) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_fetch_then_use_without_network(published, tmp_path):
    url, served = published
    cache = tmp_path / "cache"
    path = registry.fetch(OFFICIAL, cache, base_url=f"{url}/")
    content = served.read_bytes()
    assert path.read_bytes() == content
    assert [p.name for p in cache.iterdir()] == [OFFICIAL]
    served.unlink()
    assert registry.fetch(OFFICIAL, cache, base_url=url) == path
    info = {i.id: i for i in registry.list_supernets(cache)}[OFFICIAL]
    assert (info.source, info.cached, info.bytes) == ("official", True, len(content))


def test_damaged_cache_is_fetched_again(published, tmp_path):
    url, served = published
    cache = tmp_path / "cache"
    path = registry.fetch(OFFICIAL, cache, base_url=url)
    path.write_bytes(b"damaged")
    assert registry.fetch(OFFICIAL, cache, base_url=url).read_bytes() == served.read_bytes()


def test_parts_of_killed_downloads_are_removed(published, tmp_path):
    url, _ = published
    cache = tmp_path / "cache"
    cache.mkdir()
    abandoned, under_way = (cache / f".{OFFICIAL}.{name}.part" for name in ("old", "new"))
    for part in (abandoned, under_way):
        part.write_bytes(b"so far")
    os.utime(abandoned, (0, 0))
    registry.fetch(OFFICIAL, cache, base_url=url)
    assert {path.name for path in cache.iterdir()} == {OFFICIAL, under_way.name}


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(cut_off, "git blob id"), (alter, "git blob id"), (lambda p: p.unlink(), "answered 404")],
)
def test_bad_download_leaves_nothing(published, tmp_path, spoil, message):
    url, served = published
    spoil(served)
    cache = tmp_path / "cache"
    with pytest.raises(SupernetError, match=message):
        registry.fetch(OFFICIAL, cache, base_url=url)
    assert list(cache.iterdir()) == []


def test_connection_that_ends_early_or_is_refused(tmp_path, published):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(SupernetError, match=r"could not be fetched.* lay it at .*bundled"):
            registry.fetch(OFFICIAL, tmp_path / "cache", base_url=url)
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_that_cannot_be_written(published, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(SupernetError, match="can't be written"):
        registry.fetch(OFFICIAL, tmp_path / "cache", base_url=published[0])


def test_names():
    spec = registry.parse_supernet(registry.DEFAULT_SUPERNET)
    assert (spec.family, spec.width) == ("proxyless", 0.35)
    for name in ("nonsense", "../../etc/passwd", "", "ofa_mbv3_d234_e346_k357_w9.9"):
        with pytest.raises(SupernetError, match="unknown supernet"):
            registry.parse_supernet(name)
    with pytest.raises(SupernetError, match="must be one of"):
        registry.fetch("nonsense", "unused")


@pytest.mark.parametrize("spec", registry.bundled_supernets(), ids=lambda spec: spec.id)
def test_bundled(spec, tmp_path):
    found = registry.locate(spec.id, tmp_path / "no-cache")
    assert found.source == "bundled"
    assert found.path.stat().st_size < 12_000_000
    card = json.loads(found.path.with_suffix(".json").read_text())
    assert card["architecture"] == found.spec.id
    infos = {info.id: info for info in registry.list_supernets(tmp_path / "no-cache")}
    assert infos[found.spec.id].cached
    assert infos[found.spec.id].source == "bundled"
    assert not infos[OFFICIAL].cached
    assert infos[OFFICIAL].bytes is None
    assert not (tmp_path / "no-cache").exists()


def test_user_file(tmp_path):
    named = tmp_path / f"{SMALL_PROXYLESS}_mine.pth"
    named.write_bytes(b"weights")
    assert registry.locate(named, tmp_path).spec.id == f"{SMALL_PROXYLESS}_mine"
    assert str(named) in {info.id for info in registry.list_supernets(tmp_path)}
    other = tmp_path / "mine.safetensors"
    other.write_bytes(b"weights")
    with pytest.raises(SupernetError, match=r"lay a card mine\.json"):
        registry.locate(other, tmp_path)
    card = tmp_path / "mine.json"
    for content in ("{", "[]", '{"architecture": 3}', '{"architecture": "resnet"}'):
        card.write_text(content)
        with pytest.raises(SupernetError, match="card"):
            registry.locate(other, tmp_path)
    card.write_text(json.dumps({"architecture": SMALL_PROXYLESS}))
    found = registry.locate(str(other), tmp_path)
    assert (found.spec.id, found.source, found.path) == (SMALL_PROXYLESS, "file", other)
    with pytest.raises(SupernetError, match="does not exist"):
        registry.locate(tmp_path / "absent.pth", tmp_path)


def test_blob_ids_agree_with_git_if_it_is_here(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5000)
    try:
        result = subprocess.run(
            ["git", "hash-object", path], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert result.stdout.strip() == registry.git_blob_id(path)
