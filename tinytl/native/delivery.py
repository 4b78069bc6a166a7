"""What a device is sent: the trainer for it, the program of a bundle, and a few lines to read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tinytl.native.build import build_trainer
from tinytl.native.formats.program_file import ProgramFile, read_program
from tinytl.native.package import (
    PROGRAM_NAME,
    README_NAME,
    TRAINER_NAME,
    process_bytes,
    readme,
)
from tinytl.native.program import ProgramSettings, compile_bundle, sha256_of_file
from tinytl.training.bundle import load


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Files for a target, in a folder. predicted_process_bytes: the most that the trainer's whole
    process is resident with while it trains, evaluates or predicts."""

    target: str
    trainer: Path
    program: Path
    trainer_bytes: int
    predicted_process_bytes: int


def predicted_process_bytes(program: ProgramFile, trainer_bytes: int) -> int:
    """Of a program and an executable; see process_bytes."""
    return int(process_bytes(program.numbers["arena_bytes"], program.mapped_bytes, trainer_bytes))


def deliver(
    bundle: Path, target: str, output: Path, settings: ProgramSettings | None = None
) -> Delivery:
    """Write the files to a folder, which may be there. Raises ConfigError, by name, for what the
    trainer does not do, and BuildError where it can't be built; then nothing has been written."""
    content = compile_bundle(load(bundle), sha256_of_file(bundle.read_bytes()), settings)
    built = build_trainer(target)
    output.mkdir(parents=True, exist_ok=True)
    trainer, program = output / TRAINER_NAME, output / PROGRAM_NAME
    partial = trainer.with_name(f"{trainer.name}.partial")
    shutil.copyfile(built, partial)
    partial.chmod(0o755)
    partial.replace(trainer)
    program.write_bytes(content)
    delivery = Delivery(
        target=target,
        trainer=trainer,
        program=program,
        trainer_bytes=trainer.stat().st_size,
        predicted_process_bytes=predicted_process_bytes(
            read_program(content), trainer.stat().st_size
        ),
    )
    (output / README_NAME).write_text(readme(target, delivery.predicted_process_bytes))
    return delivery
