#!/usr/bin/env bash
# label-studio-sdk 2.1.2: its converter, from tasks to CSV, TSV and JSON_MIN.
#
# Expected: tasks without a label come alike, as rows whose label is empty, whether nobody has
# annotated them or the one annotation was cancelled (skipped); and a file for each format.
# Seen: a task without annotations is a row with an empty label, but one whose only annotation was
# cancelled is in no row at all, in all three formats: counted by rows it does not exist. The TSV
# is written to result.csv, the CSV's name, so who converts to both in one folder keeps the last.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "label-studio-sdk==2.1.2"

"$folder/venv/bin/python" - "$folder" <<'PY'
import json
import os
import sys

from label_studio_sdk.converter import Converter

folder = sys.argv[1]
config = (
    '<View><Image name="img" value="$photo"/><Choices name="kind" toName="img">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)


def annotation(number, choice, was_cancelled=False):
    result = [
        {
            "from_name": "kind",
            "to_name": "img",
            "type": "choices",
            "value": {"choices": [choice]},
        }
    ]
    time = "2024-01-01T00:00:00Z"
    return {
        "id": number,
        "result": [] if was_cancelled else result,
        "was_cancelled": was_cancelled,
        "completed_by": {"id": 1, "email": "a@b.c"},
        "created_at": time,
        "updated_at": time,
        "lead_time": 1.5,
    }


annotations = {
    "labelled": [annotation(1, "cat")],
    "cancelled": [annotation(2, "", was_cancelled=True)],
    "untouched": [],
}
tasks = [
    {"id": number, "data": {"photo": f"{name}.jpg"}, "annotations": found, "predictions": []}
    for number, (name, found) in enumerate(annotations.items())
]
with open(f"{folder}/tasks.json", "w") as file:
    json.dump(tasks, file)
seen = {}
for form in ("CSV", "TSV", "JSON_MIN"):
    output = f"{folder}/{form}"
    os.makedirs(output)
    Converter(config, folder).convert(f"{folder}/tasks.json", output, form, is_dir=False)
    (name,) = os.listdir(output)
    with open(f"{output}/{name}") as file:
        text = file.read()
    seen[form] = (name, [task for task in annotations if f"{task}.jpg" in text])
    print(form, *seen[form])
told = ["labelled", "untouched"]
expected = {
    "CSV": ("result.csv", told),
    "TSV": ("result.csv", told),
    "JSON_MIN": ("result.json", told),
}
sys.exit(0 if seen == expected else 1)
PY
