#!/usr/bin/env bash
# efficientnet-lite-pytorch 0.1.0 (torch 2.13.0): EfficientNet.from_name("efficientnet-lite0") and
# from_pretrained take images of any size, but each layer's padding is worked out once, when the
# network is made, for the size in the model's table (224 for Lite0), and never again.
#
# Guess: TensorFlow's "same" rule for whatever image comes, so that a stride of 2 makes
# ceil(side / 2), and the last map of an image of 97 pixels is 4 x 4 (97, 49, 25, 13, 7, 4).
# Seen: 3 x 3, without a word: one row and column less, as for 96 pixels; at 96 and 224 pixels, where
# the rules agree, outputs are the same. With image_size=None, an override that the constructor
# takes, padding follows the image: 4 x 4. So a conversion that is right at 97 pixels differs
# from this reference, unless the reference is made with image_size=None.
#
# Fails (exit 1) if that changes.
set -euo pipefail

folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 efficientnet-lite-pytorch==0.1.0

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from efficientnet_lite_pytorch import EfficientNet

torch.manual_seed(0)
as_given = EfficientNet.from_name("efficientnet-lite0").eval()
by_image = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
by_image.load_state_dict(as_given.state_dict())


def maps(side):
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return [network.extract_features(images) for network in (as_given, by_image)]


sides = {side: [found.shape[-1] for found in maps(side)] for side in (96, 97, 224)}
print("last map's side, as given and with image_size=None, by image side:", sides)
agree = all(torch.equal(*maps(side)) for side in (96, 224))
print("equal at 96 and 224:", agree)
sys.exit(0 if agree and sides == {96: [3, 3], 97: [3, 4], 224: [7, 7]} else 1)
PYTHON
