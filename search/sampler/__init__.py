"""Proposes candidates by what it predicts, as an Optuna sampler."""
