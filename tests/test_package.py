"""The names that the package offers, and what its import leaves alone."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import matrix_video
from matrix_video import attention

SOURCE = Path(matrix_video.__file__)


def test_the_lines_that_read_attention_run() -> None:
    """Those of `matrix_video.attention`'s docstring, as they stand."""
    shown = attention.__doc__ or ""
    block = shown.partition("::\n")[2].partition("\nInside a stock")[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block), names)
    assert names["said_BRN"].shape == names["led_BRN"].shape == (1, 1, 5 * 8 * 8)
    weights = names["backbone"].transformer.get_submodule(names["spoken"]).to_q.weight
    assert weights.grad is not None
    assert weights.grad.any()


def test_every_name_is_what_it_says() -> None:
    tree = ast.parse(SOURCE.read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("matrix_video.")
        for alias in node.names
    }
    assert sorted(typed) == sorted(matrix_video.__all__)
    assert matrix_video.__doc__ is not None
    for name, module in typed.items():
        found = getattr(matrix_video, name)
        assert found.__name__ == name
        assert found.__module__ == module  # what the checker believes is what is imported
        assert name in matrix_video.__doc__
        assert name in dir(matrix_video)
    with pytest.raises(AttributeError, match="has no attribute 'maps'"):
        matrix_video.maps  # noqa: B018


def test_the_import_alone_loads_no_model_library() -> None:
    code = (
        "import sys, matrix_video; "
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
