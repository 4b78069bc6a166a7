#!/usr/bin/env bash
# datasets 5.2.0 (Hugging Face) with pyarrow 25.0.1: a folder of images, loaded by "imagefolder" and
# written by Dataset.to_parquet().
#
# Expected: a file that holds the images, as push_to_hub writes one from the very same dataset.
# Seen: the column is there, with the schema of images (struct of bytes and path), but every row's
# `bytes` is null, and `path` is the absolute path on the machine that wrote the file, so the file
# is of no use anywhere else; nothing says so. Mapping datasets.table.embed_table_storage over the
# dataset in the format "arrow" first puts the bytes in, and leaves of the path its last part.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "datasets==5.2.0" "pyarrow==25.0.1" "pillow==12.3.0"
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1

"$folder/venv/bin/python" - "$folder" <<'PY'
import os
import sys

import datasets
import pyarrow.parquet as parquet
from datasets.table import embed_table_storage
from PIL import Image

folder = sys.argv[1]
for name in ("cat", "dog"):
    os.makedirs(f"{folder}/photos/{name}")
    Image.effect_noise((16, 16), 60).save(f"{folder}/photos/{name}/0.png")
photos = datasets.load_dataset("imagefolder", data_dir=f"{folder}/photos", split="train")
embedded = photos.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)


def first_image(dataset, name):
    dataset.to_parquet(f"{folder}/{name}.parquet")
    return parquet.read_table(f"{folder}/{name}.parquet")["image"][0].as_py()


plain, whole = first_image(photos, "plain"), first_image(embedded, "embedded")
print(datasets.__version__, "plain:", plain)
print("embedded:", whole["bytes"][:4], whole["path"])
as_seen = (
    plain["bytes"] is None
    and plain["path"] == f"{folder}/photos/cat/0.png"
    and whole["bytes"].startswith(b"\x89PNG")
    and whole["path"] == "0.png"
)
sys.exit(0 if as_seen else 1)
PY
