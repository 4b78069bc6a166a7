"""The artifact store, over every kind of store and database."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from service.errors import BlobError, BlobGoneError, InputError, StoreError
from service.record.claims import Claim, publish_artifact
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Blob, Installation, Job
from service.record.files import objects
from service.record.files.blobs import OWNER_KEY, Blobs, hash_of, open_blobs, refer
from service.record.files.collecting import collect, is_collection_due
from service.record.files.objects import open_objects
from service.record.jobs import delete_job
from service.settings import Settings
from tests.service.support.stores import STORES

DATABASES = ("sqlite", "postgresql")
CONTENT = b"0123456789" * 1_000


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    def make(content: bytes = CONTENT) -> Path:
        path = tmp_path / f"file-{os.urandom(4).hex()}"
        path.write_bytes(content)
        return path

    return make


def rows(database: Database) -> list[Blob]:
    with database.reading() as session:
        return list(session.scalars(select(Blob).order_by(Blob.sha256)))


def keys(blobs: Blobs) -> list[str]:
    return sorted(key for key, _ in blobs.objects.sizes() if key != OWNER_KEY)


@pytest.fixture
def artifact_of(make_job: Callable[..., Job], claim: Callable[..., Claim]) -> Callable[..., Claim]:
    """Makes an artifact of a new job refer to a blob."""

    def make(database: Database, sha256: str, path: str = "file") -> Claim:
        make_job()
        held = claim()
        artifact = Artifact(
            job_id=held.job_id,
            kind="bundle",
            path=path,
            blob_sha256=sha256,
            num_bytes=0,
            sha256=sha256,
            detail={},
            attempt=held.attempt,
            created_at=now(),
        )
        publish_artifact(database, held, artifact)
        return held

    return make


@pytest.mark.parametrize("artifact_url", STORES, indirect=True)
@pytest.mark.parametrize("database_url", DATABASES, indirect=True)
class TestEveryStore:
    def test_what_is_kept_is_fetched(
        self, blobs: Blobs, make_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        for content in (CONTENT, b""):
            path = make_file(content)
            sha256 = blobs.keep(path)
            assert sha256 == hash_of(path)
            path.unlink()
            for share in (True, False):
                target = tmp_path / "deep" / "fetched"
                blobs.fetch(sha256, target, share=share)
                assert target.read_bytes() == content
                assert [entry.name for entry in target.parent.iterdir()] == ["fetched"]
        blob = blobs.find(hash_of(make_file()))
        assert b"".join(blobs.read(blob, 5, 12)) == b"5678901"
        assert b"".join(blobs.read(blob, 9_990, 10_000)) == b"0123456789"
        assert list(blobs.read(blob, 7, 7)) == []

    def test_the_same_content_is_stored_once(
        self, blobs: Blobs, make_file: Callable[..., Path]
    ) -> None:
        assert blobs.keep(make_file()) == blobs.keep(make_file())
        (row,) = rows(blobs.database)
        assert keys(blobs) == [row.key]
        assert (row.is_stored, row.num_bytes) == (True, len(CONTENT))

    @pytest.mark.parametrize("fault", ["missing", "short", "damaged", "unknown"])
    def test_what_is_not_there_is_said_and_can_be_kept_again(
        self, blobs: Blobs, make_file: Callable[..., Path], tmp_path: Path, fault: str
    ) -> None:
        sha256 = blobs.keep(make_file())
        (key,) = keys(blobs)
        if fault == "missing":
            blobs.objects.delete([key])
        elif fault == "unknown":
            with blobs.database.writing() as session:
                session.delete(session.get(Blob, sha256))
        else:
            blobs.objects.write(key, CONTENT[:-1] + (b"" if fault == "short" else b"x"))
        target = tmp_path / "fetched"
        with pytest.raises(BlobError, match=sha256):
            blobs.fetch(sha256, target)
        assert not target.exists()
        blobs.keep(make_file(), damaged={sha256} if fault == "damaged" else ())
        blobs.fetch(sha256, target)
        assert target.read_bytes() == CONTENT

    def test_what_nothing_refers_to_is_collected(
        self,
        blobs: Blobs,
        make_file: Callable[..., Path],
        artifact_of: Callable[..., Claim],
    ) -> None:
        kept = blobs.keep(make_file())
        blobs.keep(make_file(b"garbage"))
        blobs.objects.write("orphan", b"left by a killed process")
        held = artifact_of(blobs.database, kept)
        would = collect(blobs, grace_seconds=0, dry_run=True)
        assert len(keys(blobs)) == 3
        assert collect(blobs, grace_seconds=60).num_blobs == 0
        assert len(keys(blobs)) == 2
        found = collect(blobs, grace_seconds=0)
        assert (would.num_blobs, would.num_bytes, would.num_orphans) == (1, 7, 1)
        assert (would.orphan_bytes, found.orphan_bytes) == (24, 0)
        assert (found.num_blobs, found.num_bytes, found.num_orphans) == (1, 7, 0)
        assert [row.key for row in rows(blobs.database)] == keys(blobs)
        blobs.find(kept)
        with blobs.database.writing() as session:
            job = session.get(Job, held.job_id)
            assert job is not None
            job.status = job.status.FAILED
        delete_job(blobs.database, held.job_id)
        assert collect(blobs, grace_seconds=0).num_blobs == 1
        assert rows(blobs.database) == keys(blobs) == []

    def test_a_store_belongs_to_one_installation(
        self, blobs: Blobs, settings: Settings, make_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        blobs.keep(make_file())
        other_settings = settings.model_copy(
            update={
                "database_url": f"sqlite:///{tmp_path / 'other.db'}",
                "artifact_url": settings.resolved_artifact_url,
            }
        )
        database = Database(other_settings.resolved_database_url)
        database.upgrade()
        other = open_blobs(other_settings, database)
        with pytest.raises(StoreError, match="another installation"):
            other.keep(make_file(b"theirs"))
        with pytest.raises(StoreError, match="another installation"):
            collect(other, grace_seconds=0)
        assert len(keys(blobs)) == 1
        database.close()


@pytest.mark.parametrize("database_url", DATABASES, indirect=True)
class TestRaces:
    """Interleavings, made by stopping one side at a point of its way."""

    def test_collected_between_touch_and_put(
        self, blobs: Blobs, make_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Putting took longer than the grace period: the object is put again under a new key."""
        put = blobs.objects.put

        def put_late(source: Path, key: str) -> None:
            monkeypatch.setattr(blobs.objects, "put", put)
            assert collect(blobs, grace_seconds=0).num_blobs == 1
            put(source, key)

        monkeypatch.setattr(blobs.objects, "put", put_late)
        sha256 = blobs.keep(make_file())
        (row,) = rows(blobs.database)
        assert (row.sha256, row.is_stored) == (sha256, True)
        assert len(keys(blobs)) == 2
        assert collect(blobs, grace_seconds=60).num_orphans == 1
        assert keys(blobs) == [row.key]

    def test_collected_between_put_and_reference(
        self, blobs: Blobs, make_file: Callable[..., Path], artifact_of: Callable[..., Claim]
    ) -> None:
        sha256 = blobs.keep(make_file())
        collect(blobs, grace_seconds=0)
        with pytest.raises(BlobGoneError):
            artifact_of(blobs.database, sha256)
        assert rows(blobs.database) == keys(blobs) == []

    def test_a_pending_row_is_no_reference(
        self, blobs: Blobs, make_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its writer died, or is still at it: nobody may refer to it, and it is collected."""

        def die(source: Path, key: str) -> None:
            raise KeyboardInterrupt

        path = make_file()
        with monkeypatch.context() as patched:
            patched.setattr(blobs.objects, "put", die)
            with pytest.raises(KeyboardInterrupt):
                blobs.keep(path)
        with pytest.raises(BlobGoneError), blobs.database.writing() as session:
            refer(session, hash_of(path))
        assert blobs.keep(path) == hash_of(path)
        assert len(rows(blobs.database)) == len(keys(blobs)) == 1

    def test_touched_while_the_collector_is_at_it(
        self, blobs: Blobs, settings: Settings, make_file: Callable[..., Path]
    ) -> None:
        """The touch waits for the collector, or the collector passes the row over."""
        path = make_file()
        sha256 = blobs.keep(path)
        with blobs.database.writing() as session:
            session.execute(select(Blob).with_for_update()).all()
            keeper = threading.Thread(target=blobs.keep, args=(path,))
            keeper.start()
            keeper.join(0.3)
            assert keeper.is_alive()
            session.delete(session.get(Blob, sha256))
        keeper.join(30)
        assert blobs.find(sha256).is_stored
        assert collect(blobs, grace_seconds=60).num_orphans == 1

    def test_a_reference_that_is_being_written_is_seen(
        self, blobs: Blobs, make_file: Callable[..., Path], artifact_of: Callable[..., Claim]
    ) -> None:
        """PostgreSQL passes the locked row over, SQLite waits for the commit."""
        sha256 = blobs.keep(make_file())
        held = artifact_of(blobs.database, blobs.keep(make_file(b"another")))
        found: list[int] = []

        def run() -> None:
            found.append(collect(blobs, grace_seconds=0).num_blobs)

        with blobs.database.writing() as session:
            refer(session, sha256)
            artifact = session.get(Artifact, (held.job_id, "bundle"))
            assert artifact is not None
            artifact.blob_sha256 = sha256
            session.flush()
            collector = threading.Thread(target=run)
            collector.start()
            collector.join(0.5)
        collector.join(30)
        assert sum(found) <= 1  # the other one, where the collector waited
        blobs.find(sha256)

    def test_many_writers_and_a_collector_without_grace(
        self, blobs: Blobs, settings: Settings, make_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        """Of few contents, all at once: what was referred to at the end is there."""
        contents = [bytes([number]) * 100 for number in range(3)]
        done = threading.Event()
        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> threading.Thread:
            def run() -> None:
                try:
                    work()
                except BaseException as error:
                    failures.append(error)

            return threading.Thread(target=run)

        def write(number: int) -> None:
            for turn in range(12):
                path = tmp_path / f"writer-{number}-{turn}"
                path.write_bytes(contents[(number + turn) % 3])
                while True:
                    sha256 = blobs.keep(path)
                    try:
                        with blobs.database.writing() as session:
                            refer(session, sha256)
                        break
                    except BlobGoneError:
                        continue

        def run_collector() -> None:
            while not done.is_set():
                collect(blobs, grace_seconds=0)

        writers = [guarded(lambda number=number: write(number)) for number in range(4)]  # type: ignore[misc]
        collector = guarded(run_collector)
        for thread in (*writers, collector):
            thread.start()
        for thread in writers:
            thread.join(60)
        done.set()
        collector.join(60)
        assert failures == []
        collect(blobs, grace_seconds=0)
        assert rows(blobs.database) == keys(blobs) == []

    def test_one_worker_collects_at_a_time(self, database: Database) -> None:
        assert is_collection_due(database, 3600)
        assert not is_collection_due(database, 3600)
        with database.writing() as session:
            (installation,) = session.scalars(select(Installation)).all()
            installation.collected_at = 0.0
        results: list[bool] = []
        threads = [
            threading.Thread(target=lambda: results.append(is_collection_due(database, 3600)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(results) == [False, False, False, True]


def test_a_folder_links_and_leaves_nothing_unfinished(
    blobs: Blobs, make_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file()
    sha256 = blobs.keep(path)
    stored = blobs.path(blobs.find(sha256))
    assert stored is not None
    assert stored.samefile(path)
    blobs.keep(path, damaged={sha256})
    assert stored.stat().st_nlink == 2
    blobs.fetch(sha256, tmp_path / "shared")
    blobs.fetch(sha256, tmp_path / "own", share=False)
    assert (tmp_path / "shared").samefile(stored)
    assert not (tmp_path / "own").samefile(stored)
    assert stored.stat().st_mode & 0o777 == 0o444
    left = stored.with_name(f"{stored.name}.0.partial")
    left.write_bytes(b"half")
    collect(blobs, grace_seconds=0)
    assert left.exists()  # its writer may be alive
    monkeypatch.setattr(objects, "UNFINISHED_SECONDS", 0)
    collect(blobs, grace_seconds=0)
    assert not left.exists()


def test_a_folder_on_another_file_system_copies(
    blobs: Blobs, make_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = make_file()
    sha256 = blobs.keep(path)
    stored = blobs.path(blobs.find(sha256))
    assert stored is not None
    assert not stored.samefile(path)
    blobs.fetch(sha256, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("magic://bucket", "unknown protocol 'magic'"),
        ("s3://", "names no bucket"),
        ("gs://bucket", "not installed"),
    ],
)
def test_what_is_no_store_is_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_objects(url)
