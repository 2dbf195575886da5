"""Functions that `torch.compile` has to leave as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def uncompiled(function: Function) -> Function:
    """As `torch.compiler.disable`, which loads the compiler where a function is merely defined.

    That takes every process that completes a video about a second, and none of them compiles. Here
    the compiler is loaded by whoever does.
    """
    disabled = torch._disable_dynamo(function)  # (torch's own, for its optimisers; it is lazy)

    @functools.wraps(function)
    def call(*args, **kwargs):
        return (disabled if torch.compiler.is_compiling() else function)(*args, **kwargs)

    return call
