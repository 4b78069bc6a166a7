"""Inception-V3 against what is published of it: parameters, and the maps of the paper's table."""

import torch

from benchmarks.memory.inception import InceptionV3


def test_parameters_are_the_published_ones():
    """23,834,568 with 1000 classes: torchvision's inception_v3 without the auxiliary head."""
    with torch.device("meta"):
        network = InceptionV3(num_classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_834_568


def test_maps_have_the_papers_sizes():
    with torch.device("meta"):
        network = InceptionV3(num_classes=102)
        x = torch.zeros(2, 3, 299, 299)
        sizes = []
        for part in (network.stem, network.modules_35, network.modules_17, network.modules_8):
            x = part(x)
            sizes.append(tuple(x.shape[1:]))
        logits = network(torch.zeros(2, 3, 299, 299))
    assert sizes == [(192, 35, 35), (288, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert logits.shape == (2, 102)
