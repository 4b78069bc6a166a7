"""From images to an adapted network: data, the training loop, checkpoints, the bundle."""
