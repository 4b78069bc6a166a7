#!/usr/bin/env bash
# optuna-dashboard 0.21.0 does not see constraints that Optuna 5.0.0's own Trial.set_constraint sets.
#
# set_constraint keeps each constraint under a system attribute of its own, "constraints:NAME". The
# dashboard's serializer reads the attribute "constraints" alone, a list, as constraints_func of the
# samplers writes it. So a trial that Optuna itself counts as infeasible (it is not among
# study.best_trials) is shown as feasible, with an empty list of constraints. A trial that is made with
# system_attrs={"constraints": [1.0]} is seen as infeasible by both.
#
# Seen: set_constraint -> Optuna {'memory': 1.0}, dashboard []; the list -> Optuna {'0': 1.0} or alike,
# dashboard [1.0].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0 optuna-dashboard==0.21.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import optuna
from optuna.trial import create_trial
from optuna_dashboard._serializer import serialize_frozen_trial

optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study()
trial = study.ask()
trial.set_constraint("memory", 1.0)
study.tell(trial, 0.0)
study.add_trial(create_trial(value=0.0, system_attrs={"constraints": [1.0]}))
by_method, by_list = study.get_trials()
shown = [
    serialize_frozen_trial(0, one, one.system_attrs)["constraints"] for one in (by_method, by_list)
]
print("Optuna:", dict(by_method.constraints), dict(by_list.constraints), "dashboard:", shown)
assert max(by_method.constraints.values()) > 0, by_method.constraints
assert max(by_list.constraints.values()) > 0, by_list.constraints
assert shown == [[], [1.0]], shown
PYTHON
