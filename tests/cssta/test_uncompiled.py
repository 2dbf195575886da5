from __future__ import annotations

import subprocess
import sys

import torch

from cssta.uncompiled import uncompiled

LOADED = "import sys, cssta.engine; sys.exit('torch._dynamo' in sys.modules)"


def test_what_completes_videos_does_not_load_the_compiler():
    assert subprocess.run([sys.executable, "-c", LOADED]).returncode == 0


def test_the_compiler_leaves_it_as_it_is():
    compiled: list[bool] = []

    @uncompiled
    def twice(x: torch.Tensor) -> torch.Tensor:
        """Twice as much."""
        compiled.append(torch.compiler.is_compiling())
        return x * 2

    def around(x: torch.Tensor) -> torch.Tensor:
        return twice(x + 1) + 1

    x = torch.arange(3.0)
    assert torch.compile(around, backend="eager")(x).equal(around(x))
    assert compiled == [False, False] and twice.__doc__ == "Twice as much."
