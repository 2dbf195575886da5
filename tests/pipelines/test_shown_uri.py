from __future__ import annotations

import pytest

from pipelines.shown_uri import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:secret@host:5432/optuna", "postgresql://me:***@host:5432/optuna"),
        (
            "at postgresql+psycopg://me:p@ss:w@host/o now",
            "at postgresql+psycopg://me:***@host/o now",
        ),
        ("http://:token@host", "http://:***@host"),
        ("postgresql://me@host/optuna", "postgresql://me@host/optuna"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_passwords_are_not_shown(text: str, expected: str):
    assert shown(text) == expected
