"""Evaluation by named, pinned protocols, beside baselines without a network: `cssta evaluate`."""
