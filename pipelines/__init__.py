"""Flows around the method: data, training stages, tuning, inference, evaluation, registry."""
