"""The program that trains the delivered network further on a device."""

from __future__ import annotations

from pathlib import Path

from service.record.files.artifacts import DEVICE_PROGRAM
from service.work.job.job_run import JobRun
from tinytl.errors import ConfigError
from tinytl.native.formats.program_file import read_program
from tinytl.native.program import ProgramSettings, compile_bundle, sha256_of_file
from tinytl.training.bundle import load
from tinytl.units import format_bytes


def publish_program(run: JobRun, bundle: Path) -> None:
    """Leave the program of a bundle as the job's, where the device trainer does what it needs."""
    settings = ProgramSettings(
        learning_rate=run.options.learning_rate,
        label_smoothing=run.options.label_smoothing,
        augmentation=run.augmentation,
        seed=run.options.seed,
    )
    try:
        content = compile_bundle(load(bundle), sha256_of_file(bundle.read_bytes()), settings)
    except ConfigError as error:
        run.log(f"no device trainer: {error}")
        return
    program = read_program(content)
    path = run.workplace.path("program.tfp")
    path.write_bytes(content)
    needs = {
        "arena_bytes": program.numbers["arena_bytes"],
        "mapped_bytes": program.mapped_bytes,
    }
    run.files.publish(DEVICE_PROGRAM, path, detail=needs)
    run.log(
        f"device trainer: a program of {format_bytes(len(content))}, whose arena takes "
        f"{format_bytes(needs['arena_bytes'])}"
    )
