"""A finished search as a study in Optuna's own storage, for its dashboard and its plots."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import SearchError
from search.space.candidates import Candidate, SearchSpace

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "validation accuracy": "maximize",
    "training memory (bytes)": "minimize",
}

_CONSTRAINTS = "constraints"
"""The attribute under which Optuna's samplers have always kept constraints, as a list. Its
dashboard (0.21) reads that alone, and not what set_constraint of Optuna 5 writes; Optuna reads
both."""


@dataclass(frozen=True, kw_only=True)
class ExportedTrial:
    """A scored candidate. excess: by how much it is over each limit; none is above 0 where it is
    within them. accuracy: None for one that was given up. attributes: whatever JSON can hold."""

    candidate: Candidate
    accuracy: float | None
    peak_bytes: int
    excess: tuple[float, ...]
    started_at: datetime
    finished_at: datetime
    attributes: Mapping[str, Any]


def export_study(
    storage_url: str,
    name: str,
    space: SearchSpace,
    trials: Sequence[ExportedTrial],
    attributes: Mapping[str, Any],
) -> None:
    """Write a study of two objectives, accuracy and memory, to the database at storage_url: whole
    or not at all. Raises SearchError for a URL that is none, a database that does not work, and a
    study of this name that is there already.
    """
    distributions = {
        choice: CategoricalDistribution(list(values)) for choice, values in space.choices().items()
    }
    frozen = [_frozen(trial, space, distributions) for trial in trials]
    try:
        storage = RDBStorage(storage_url)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=list(OBJECTIVES.values())
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(list(OBJECTIVES))
            for key, value in attributes.items():
                study.set_user_attr(key, value)
            study.add_trials(frozen)
        except BaseException:
            optuna.delete_study(study_name=name, storage=storage)
            raise
    except DuplicatedStudyError as error:
        raise SearchError(
            f"the storage has a study {name!r} already; give another name, or delete that one"
        ) from error
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise SearchError(
            f"the storage must be a database's URL, such as sqlite:///study.db: {error}"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise SearchError(f"the storage does not work: {error}") from error


def _frozen(
    trial: ExportedTrial, space: SearchSpace, distributions: Mapping[str, CategoricalDistribution]
) -> FrozenTrial:
    is_complete = trial.accuracy is not None
    frozen = create_trial(
        state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
        values=[trial.accuracy, float(trial.peak_bytes)] if trial.accuracy is not None else None,
        params=dict(space.encode(trial.candidate)),
        distributions=dict(distributions),
        user_attrs=dict(trial.attributes),
        system_attrs={_CONSTRAINTS: list(trial.excess)},
    )
    frozen.datetime_start, frozen.datetime_complete = trial.started_at, trial.finished_at
    return frozen
