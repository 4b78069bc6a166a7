"""A pretraining in this process, or in several that train together on this machine."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from search.elastic.supernet import load_supernet_file
from search.errors import PretrainError, SearchError
from search.pretraining.group import Group, join_group
from search.pretraining.output import Note
from search.pretraining.run import Progress, pretrain
from search.pretraining.settings import PretrainSettings
from search.supernets.registry import SupernetFile
from tinytl.errors import CancelledError, TinyTLError
from tinytl.training.data import ImageStore

_POLL_SECONDS = 0.2
_STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What a process needs to know to take part: everything by path."""

    settings: PretrainSettings
    store: Path
    directory: Path
    note: Note
    start: SupernetFile | None

    def run(
        self,
        group: Group,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> Path:
        start = None if self.start is None else load_supernet_file(self.start)
        try:
            return pretrain(
                self.settings,
                ImageStore.open(self.store),
                self.directory,
                self.note,
                start=start,
                group=group,
                on_progress=on_progress,
                should_stop=should_stop,
            )
        except torch.OutOfMemoryError as error:
            raise PretrainError(
                f"the GPU's memory is too small for this training: ask for a smaller batch size "
                f"or smaller resolutions ({error})"
            ) from error


def usual_num_processes() -> int:
    """One for each GPU, else one."""
    return max(1, torch.cuda.device_count())


def run_in_processes(
    pretraining: Pretraining,
    num_processes: int,
    *,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Path:
    """Train on num_processes GPUs, or in as many processes on the CPU; the supernet's path.

    One process is this one. Several are its children, which end when it ends, however it does.
    """
    if num_processes == 1:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return pretraining.run(Group(device=device), on_progress, should_stop)
    if torch.cuda.is_available() and num_processes > torch.cuda.device_count():
        raise PretrainError(
            f"processes must be at most the {torch.cuda.device_count()} GPUs "
            f"but got {num_processes}"
        )
    context = torch.multiprocessing.get_context("spawn")
    pipe, end_of_first = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="tinyfit-") as folder:
        children = [
            context.Process(
                target=_take_part,
                args=(pretraining, rank, num_processes, Path(folder) / "meeting-point"),
                kwargs={"pipe": end_of_first if rank == 0 else None},
                daemon=True,
            )
            for rank in range(num_processes)
        ]
        try:
            with _ctrl_c_blocked():  # in the children for good: the parent tells when to stop
                for child in children:
                    child.start()
            end_of_first.close()
            return _follow(children, pipe, on_progress, should_stop)
        finally:
            for child in children:
                child.kill()
                child.join()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """It comes here once the block ends, and never to the processes that are started in it."""
    resource_tracker.ensure_running()  # else the first process starts it, which unblocks Ctrl-C
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _follow(
    children: Sequence[BaseProcess],
    pipe: Connection[Any, Any],
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Path:
    """Pass on what the first process tells, until it tells the end."""
    is_told = False
    while True:
        if should_stop() and not is_told:
            pipe.send(_STOP)
            is_told = True
        if pipe.poll(_POLL_SECONDS):
            try:
                news = pipe.recv()
            except EOFError:
                children[0].join()
            else:
                if isinstance(news, Path):
                    return news
                if isinstance(news, Exception):
                    raise news
                on_progress(news)
                continue
        ended = sorted(
            (child.exitcode, rank) for rank, child in enumerate(children) if child.exitcode
        )
        if ended:  # one that was killed has a negative code, and takes the others along
            code, rank = ended[0]
            raise PretrainError(
                f"process {rank} of {len(children)} ended with code {code}; run again to go on "
                f"from the last checkpoint"
            )


def _take_part(
    pretraining: Pretraining,
    rank: int,
    num_processes: int,
    meeting_point: Path,
    *,
    pipe: Connection[Any, Any] | None,
) -> None:
    """What a child does. The first one has a pipe to the parent."""
    end_with_parent()
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    torch.set_num_threads(max(1, torch.get_num_threads() // num_processes))
    tell: Callable[[Any], None] = (lambda news: None) if pipe is None else pipe.send
    try:
        group = join_group(rank, num_processes, meeting_point)
        tell(pretraining.run(group, tell, (lambda: False) if pipe is None else pipe.poll))
    except (SearchError, TinyTLError, OSError) as error:
        tell(error)
        if pipe is None and not isinstance(error, CancelledError):
            sys.exit(f"process {rank}: {error}")


def end_with_parent() -> None:
    """A child of multiprocessing ends when its parent does, kill -9 included."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
