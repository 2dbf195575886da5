"""Flows around the method: data, training stages, tuning, inference, evaluation, registry."""

from pipelines.whole_imports import keep_imports_whole

keep_imports_whole()
