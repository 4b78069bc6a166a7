import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from service.cli.main import main
from service.contract.requests import JobRequest
from service.record.db.database import Database
from service.record.presence import mark_gone, mark_seen

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys\nfrom service.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*{'torch', 'fastapi', 'sqlalchemy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
    commands = (
        *("serve", "worker", "workers", "adapt", "price", "measure", "supernets", "db", "keys"),
        "pretrain",
        *("submit", "list", "watch", "download", "cancel", "pause", "resume", "retry", "delete"),
    )
    for command in commands:
        assert re.search(rf"^ +{command}\b", done.stdout, re.MULTILINE)


def test_the_defaults_in_the_help_are_those_of_the_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = JobRequest(dataset="d1", memory_limit=1)
    for command in ("adapt", "submit"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert f"what is trained ({request.method.value})" in text
        settings = request.settings.model_dump(mode="json", exclude_none=True)
        for switch in ("horizontal_flip", "race", "reuse", "refit"):
            del settings[switch]
        for name, value in settings.items():
            option = f"--{name.replace('_', '-')} "
            shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            assert f"({shown})" in text.split(option)[-1].split(" --")[0], name


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["adapt"], ["frobnicate"], ["adapt", "x", "--memory-limit"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()


def test_supernets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supernets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["supernets"]
    assert {"official", "bundled"} <= {supernet["source"] for supernet in found}
    assert all(supernet.keys() == {"id", "source", "bytes", "cached"} for supernet in found)
    assert main(["supernets"]) == 0
    assert found[0]["id"] in capsys.readouterr().out


def test_db_upgrade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "upgrade", "--data-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["upgraded"] is True
    assert (tmp_path / "tinyfit.db").is_file()


def test_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["workers", "--data-dir", str(tmp_path)]
    assert main(here) == 1
    assert capsys.readouterr().out == "no worker has been heard of for 30 s\n"
    database = Database(f"sqlite:///{tmp_path / 'tinyfit.db'}")
    mark_seen(database, "w1", "elsewhere:12")
    assert main(here) == 0
    assert capsys.readouterr().out.startswith("elsewhere:12  since 20")
    assert main([*here, "--here"]) == 1
    mark_seen(database, "w2", f"{socket.gethostname()}:13")
    capsys.readouterr()
    assert main([*here, "--here", "--json"]) == 0
    (worker,) = json.loads(capsys.readouterr().out)["workers"]
    assert worker["name"] == f"{socket.gethostname()}:13"
    mark_gone(database, "w2")
    database.close()
    assert main([*here, "--here"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory-limit", "100KB"], r"smallest feasible one is .* \(\d+ bytes\)"),
        (["--memory-limit", "24 parsecs"], "24 parsecs"),
        (["--memory-limit", "24MB", "--trials", "0"], "trials.*greater than or equal to 1"),
        (["--memory-limit", "24MB", "--method", "magic"], "'magic'"),
        (["--memory-limit", "24MB", "--time-limit", "10 parsecs"], "not a duration: '10 parsecs'"),
        (["--memory-limit", "24MB", "--mac-limit", "20MB"], "not a count: '20MB'"),
        (["--memory-limit", "24MB", "--sampler", "oracle"], "'oracle'.*'predictor'"),
        (["--memory-limit", "24MB", "--supernet", "nowhere"], "unknown supernet 'nowhere'"),
        (["--memory-limit", "24MB", "--resolutions", "96,48"], "must rise"),
    ],
)
def test_adapt_refuses_bad_arguments(
    make_zip: MakeZip,
    flat_files: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    output = tmp_path / "output"
    status = main(["adapt", str(make_zip(flat_files)), "--output", str(output), *arguments])
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    last = captured.err.splitlines()[-1]
    assert last.startswith("tinyfit: ")
    assert re.search(words, last)
    assert not output.exists()


def test_adapt_tells_what_is_to_know_of_the_data(
    make_zip: MakeZip, flat_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = ["--memory-limit", "100KB", "--output", str(tmp_path / "output")]
    assert main(["adapt", str(make_zip(flat_files)), *limit]) == 2
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "no validation and no test images" in notes[0]
    assert "('circle', 'square') have fewer than" in notes[1]


def test_adapt_refuses_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    limit = ["--memory-limit", "24MB", "--output", str(output)]
    assert main(["adapt", "/nowhere/images.zip", *limit]) == 2
    assert "'/nowhere/images.zip' does not exist" in capsys.readouterr().err
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK no zip")
    assert main(["adapt", str(broken), *limit]) == 2
    assert "not a zip" in capsys.readouterr().err
    assert (output / "mine.txt").read_text() == "keep"


def test_adapt_refuses_an_output_among_the_images(
    flat_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    for name, data in flat_files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    output = folder / "output"
    status = main(["adapt", str(folder), "--memory-limit", "24MB", "--output", str(output)])
    assert status == 2
    assert "in the data folder" in capsys.readouterr().err
    assert not output.exists()


def test_adapt_refuses_a_damaged_supernet(
    make_zip: MakeZip, flat_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supernet = tmp_path / "ofa_proxyless_d234_e346_k357_w0.35_mine.pth"
    supernet.write_bytes(b"no weights")
    arguments = ["--memory-limit", "24MB", "--supernet", str(supernet)]
    output = tmp_path / "output"
    assert main(["adapt", str(make_zip(flat_files)), *arguments, "--output", str(output)]) == 2
    assert "damaged" in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


def test_adapt_removes_what_a_killed_import_left(
    make_zip: MakeZip, flat_files: Files, tmp_path: Path
) -> None:
    left = tmp_path / "output" / ".tinyfit" / "incoming" / "0123"
    left.mkdir(parents=True)
    limit = ["--memory-limit", "100KB", "--output", str(tmp_path / "output")]
    assert main(["adapt", str(make_zip(flat_files)), *limit]) == 2
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("LEASE_SECONDS", "-3", "lease_seconds '-3': Input should be greater than 0"),
        (
            "RAY_GPUS_PER_TASK",
            "2",
            "ray_gpus_per_task '2': ray_gpus_per_task must be at most 1, as a task uses one GPU, "
            "but got 2",
        ),
        (
            "RAY_GPUS_PER_TASK",
            "1",
            "ray_gpus_per_task is for tasks on a Ray cluster: it must be 0 without a "
            "ray_address, but got 1",
        ),
    ],
)
def test_bad_settings_are_one_line(
    name: str,
    value: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"TINYFIT_{name}", value)
    assert main(["supernets"]) == 2
    assert capsys.readouterr().err == f"tinyfit: {line}\n"


def test_a_data_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data"
    path.write_text("a file")
    assert main(["db", "upgrade", "--data-dir", str(path)]) == 1
    assert capsys.readouterr().err == f"tinyfit: {str(path)!r}: File exists\n"


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, "--data-dir", str(tmp_path)]) == 1
    assert f"can't listen on 127.0.0.1:{port}" in capsys.readouterr().err
