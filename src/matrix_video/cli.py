"""The command ``matrix``: parse, run, and turn errors into one paragraph and an exit code.

Exit codes: 0 done; 1 a problem that the message names; 2 wrong usage; 130 interrupted; 143
terminated.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn, Protocol, cast

import tyro
from rich.console import Console

from matrix_video.services.errors import MatrixError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("matrix_video.recipes.demo", "DemoCommand"),
    "world": ("matrix_video.recipes.world", "WorldCommand"),
    "check": ("matrix_video.recipes.check", "CheckCommand"),
    "convert": ("matrix_video.recipes.convert", "ConvertCommand"),
    "analyze": ("matrix_video.recipes.analyze", "AnalyzeCommand"),
    "train": ("matrix_video.recipes.train", "TrainCommand"),
    "generate": ("matrix_video.recipes.generate", "GenerateCommand"),
    "evaluate": ("matrix_video.recipes.evaluate", "EvaluateCommand"),
    "report": ("matrix_video.recipes.report", "ReportCommand"),
}
"""Command → module and configuration class. A module has one frozen dataclass, whose fields are
the options, and ``run(config) -> exit code``; it imports torch only when it runs."""


class _Recipe(Protocol):
    def run(self, config: Any, /) -> int: ...


def _recipe(name: str) -> _Recipe:
    return cast(_Recipe, importlib.import_module(COMMANDS[name][0]))


def _config_class(name: str) -> type:
    module, class_name = COMMANDS[name]
    return cast(type, getattr(importlib.import_module(module), class_name))


def parse(arguments: Sequence[str]) -> tuple[str, Any]:
    """Command name and its configuration; exits with 2 and a usage text when they do not parse."""
    classes = {name: _config_class(name) for name in COMMANDS}
    union: Any = None
    for name, cls in classes.items():
        one: Any = Annotated[cls, tyro.conf.subcommand(name=name)]
        union = one if union is None else union | one
    config = tyro.cli(
        union,
        prog="matrix",
        description="Make video diffusion transformers follow who does what to whom: measure "
        "their attention against mask tracks, align the layers that matter, score the result.",
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return next(name for name, cls in classes.items() if isinstance(config, cls)), config


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point; never returns."""
    signal.signal(signal.SIGTERM, _terminate)
    name, config = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _recipe(name).run(config)
    except MatrixError as error:
        Console(stderr=True).print(f"matrix {name}: {error}", style="red", highlight=False, markup=False)
        code = 1
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)
