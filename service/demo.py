"""`make demo`: the whole main job, as a user does it, on real images of handwritten digits.

Starts `tinyfit serve` on its embedded defaults, uploads a zip, submits a job with a memory limit,
follows it, downloads the checkpoint, and judges it in a fresh process. Leaves only ./demo-out.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.client import Client
from service.console import Meter, format_seconds
from service.contract.requests import JobRequest
from service.contract.status import Status
from service.views.peaks import peak_rows, trainer_text
from service.views.schemas import EventView, JobView
from tinytl.description.plan import Plan
from tinytl.environment import torch_environment
from tinytl.units import format_bytes

OUTPUT = Path("demo-out")
MEMORY_LIMIT = "6MB"
SETTINGS = {
    "trials": 16,
    "epochs": 4,
    "adapt_steps": 200,
    "seed": 0,
    "resolutions": [32, 40, 48],
    "horizontal_flip": False,  # a mirrored digit is another sign
}
_IMAGE_SIDE = 32
_TEST_SHARE = 0.25
_START_SECONDS = 60


def main() -> int:
    started = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    archive = OUTPUT / "digits.zip"
    bundle = OUTPUT / "model.tinyfit.zip"
    num_images = export_digits(archive)
    _say(f"{num_images} real images of handwritten digits are in {archive}")
    with (
        tempfile.TemporaryDirectory(prefix="tinyfit-demo-") as data_dir,
        serving(Path(data_dir)) as client,
    ):
        _say(f"tinyfit serves {client.url}")
        job = fit(client, archive, bundle)
    judged = judge(bundle, archive)
    _summarize(job, judged, bundle, time.monotonic() - started)
    return 0


def export_digits(path: Path) -> int:
    """Write scikit-learn's digits as digits/train/0/0001.png, ...; returns how many images.

    Every image keeps its own place: a stratified quarter is the test split.
    """
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    indices = range(len(digits.target))
    _, test = train_test_split(
        indices, test_size=_TEST_SHARE, random_state=0, stratify=digits.target
    )
    held_out = set(test)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in indices:
            pixels = (digits.images[index] * (255 / 16)).round().astype("uint8")
            image = Image.fromarray(pixels).resize((_IMAGE_SIDE, _IMAGE_SIDE))
            stream = io.BytesIO()
            image.save(stream, "PNG")
            split = "test" if index in held_out else "train"
            name = f"digits/{split}/{digits.target[index]}/{index:04d}.png"
            archive.writestr(zipfile.ZipInfo(name), stream.getvalue())
    return len(indices)


@contextmanager
def serving(data_dir: Path, **settings: str) -> Iterator[Client]:
    """A server of its own on any free port, and a client of it.

    settings: TINYFIT_* variables; those of this process do not matter.
    """
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--host", "127.0.0.1"]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TINYFIT_")
    }
    server = subprocess.Popen(
        [*command, "--data-dir", str(data_dir)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment | settings,
    )
    log: list[str] = []
    reader = threading.Thread(target=_read_lines, args=(server, log), daemon=True)
    reader.start()
    try:
        with Client(_address(server, log)) as client:
            yield client
    except BaseException:
        sys.stderr.write("".join(log[-30:]))
        raise
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(40)
        server.kill()
        server.wait()


def fit(client: Client, archive: Path, bundle: Path) -> JobView:
    """Upload, queue, wait and download; returns the finished job."""
    dataset = client.upload(archive)
    body = {
        "dataset": dataset.id,
        "memory_limit": MEMORY_LIMIT,
        "name": "digits demo",
        "settings": SETTINGS,
    }
    job = client.submit(JobRequest.model_validate(body))
    _say(f"job {job.id} may take {MEMORY_LIMIT} of memory in training")
    meter = Meter(sys.stderr)

    def show(found: EventView | JobView) -> None:
        if isinstance(found, JobView):
            meter.show(found.stage or found.status.value, found.progress)

    job = client.wait(job.id, show)
    meter.close()
    if job.status is not Status.SUCCEEDED:
        raise SystemExit(f"the job {job.status.value}: {job.error}")
    return client.download(job.id, bundle)


def judge(bundle: Path, archive: Path) -> dict[str, Any]:
    """Load the bundle in a fresh process, predict every test image, train again and measure."""
    with tempfile.TemporaryDirectory(prefix="tinyfit-demo-") as directory:
        with zipfile.ZipFile(archive) as images:
            images.extractall(directory)
        done = subprocess.run(
            [sys.executable, "-m", "service.demo_judge", str(bundle), directory],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=torch_environment(),
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _read_lines(server: subprocess.Popen[str], log: list[str]) -> None:
    assert server.stderr is not None
    log.extend(iter(server.stderr.readline, ""))


def _address(server: subprocess.Popen[str], log: list[str]) -> str:
    """Where the server says that it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for line in log:
            if found := re.search(r"tinyfit serves (http://\S+)", line):
                return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit("the server did not start")


def _summarize(job: JobView, judged: dict[str, Any], bundle: Path, seconds: float) -> None:
    result = job.result
    assert result is not None
    plan = Plan.from_dict(result.plan)
    gain = 100 * (judged["test_accuracy"] - result.head_only_test_accuracy)
    rows = (
        ("memory limit", format_bytes(job.memory_limit_bytes)),
        *peak_rows(result),
        ("  measured again", f"{format_bytes(judged['measured_peak_bytes'])} (fresh process)"),
        ("trained by", trainer_text(result)),
        ("chosen subnet", f"depths {result.subnet['depths']}, {result.resolution} px input"),
        ("plan", plan.describe()),
        ("test accuracy", f"{judged['test_accuracy']:.1%} ({judged['num_images']} images)"),
        ("  head-only training", f"{result.head_only_test_accuracy:.1%}"),
        ("  gain", f"{gain:+.1f} points"),
        ("checkpoint", f"{bundle} ({format_bytes(bundle.stat().st_size)})"),
        ("time", format_seconds(seconds)),
    )
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("\n" + "".join(f"{name:<{width}}  {value}\n" for name, value in rows))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
