"""The command ``matrix``: parse, run, and turn errors into one paragraph and an exit code.

Exit codes: 0 done; 1 a problem that the message names; 2 wrong usage; 130 interrupted; 143
terminated.
"""

from __future__ import annotations

import importlib
import inspect
import signal
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Protocol, cast

import tyro

from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError
from matrix_video.services.signals import EXIT_TERMINATED

if TYPE_CHECKING:
    from matrix_video.recipes.settings import RecipeName

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("matrix_video.recipes.demo", "DemoCommand"),
    "world": ("matrix_video.recipes.world", "WorldCommand"),
    "check": ("matrix_video.recipes.check", "CheckCommand"),
    "convert": ("matrix_video.recipes.convert", "ConvertCommand"),
    "analyze": ("matrix_video.recipes.analyze", "AnalyzeCommand"),
    "plan": ("matrix_video.recipes.plan", "PlanCommand"),
    "train": ("matrix_video.recipes.train", "TrainCommand"),
    "generate": ("matrix_video.recipes.generate", "GenerateCommand"),
    "evaluate": ("matrix_video.recipes.evaluate", "EvaluateCommand"),
    "report": ("matrix_video.recipes.report", "ReportCommand"),
}
"""Command → module and configuration class. A module has one frozen configuration, whose fields are
the options, and ``run(config) -> exit code``; it imports torch only when it runs."""

STARTED: Final = ("train", "plan")
"""Commands that take ``--recipe``. Their modules have ``start(recipe, given options)``, which
returns a configuration of other defaults."""

_DESCRIPTION: Final = (
    "Make video diffusion transformers follow who does what to whom: measure their attention "
    "against mask tracks, align the layers that matter, score the result."
)
EXIT_PROBLEM: Final = 1
EXIT_INTERRUPTED: Final = 130


class _Recipe(Protocol):
    def run(self, config: Any, /) -> int: ...


class _Started(Protocol):
    def start(self, recipe: RecipeName, given: Collection[str], /) -> Any: ...


def _recipe(name: str) -> _Recipe:
    return cast(_Recipe, importlib.import_module(COMMANDS[name][0]))


def _config_class(name: str) -> type:
    module, class_name = COMMANDS[name]
    return cast(type, getattr(importlib.import_module(module), class_name))


def parse(arguments: Sequence[str]) -> tuple[str, Any]:
    """Command name and its configuration; exits with 2 and a usage text when they do not parse."""
    name = arguments[0] if arguments else ""
    if name in COMMANDS:  # the usual way: only this command's module is loaded
        cls = _config_class(name)
        options = list(arguments[1:])
        # Commands without subcommands of their own: an option is its field's bare name.
        flat = (tyro.conf.OmitArgPrefixes,)
        prog, start = f"matrix {name}", _start(name, options)
        return name, tyro.cli(cls, prog=prog, args=options, config=flat, default=start)
    union: Any = None
    for command in COMMANDS:
        cls = _config_class(command)
        summary = (inspect.getdoc(cls) or "").partition("\n\n")[0]
        one: Any = Annotated[cls, tyro.conf.subcommand(name=command, description=summary)]
        union = one if union is None else union | one
    # --help, no command or an unknown one: tyro prints and exits.
    config = tyro.cli(union, prog="matrix", description=_DESCRIPTION, args=list(arguments))
    raise AssertionError(f"{arguments} parsed to {config} without naming a command first")


def _start(name: str, options: Sequence[str]) -> Any:
    """The defaults of a command under the recipe that its options name, if they do.

    They must be known before options are parsed; a name that is no recipe is left to the parser.
    """
    if name not in STARTED:
        return tyro.MISSING_NONPROP
    from matrix_video.recipes.settings import RECIPES

    words = [word for option in options for word in option.split("=", maxsplit=1)]
    asked = [value for option, value in pairwise(words) if option == "--recipe"]
    known: dict[str, RecipeName] = {recipe: recipe for recipe in RECIPES}
    if not asked or asked[-1] not in known:
        return tyro.MISSING_NONPROP
    given = {word.removeprefix("--").replace("-", "_") for word in words if word[:2] == "--"}
    module = cast(_Started, importlib.import_module(COMMANDS[name][0]))
    return module.start(known[asked[-1]], given)


def _say(name: str, message: str) -> None:
    say(make_console(stderr=True), f"matrix {name}: {message}", style="red")


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point; never returns."""
    # An exception, so that temporary files and locks go as after any other error.
    signal.signal(signal.SIGTERM, _terminate)
    given = sys.argv[1:] if arguments is None else arguments
    name = given[0] if given else ""
    try:
        name, config = parse(given)
        code = _recipe(name).run(config)
    except MatrixError as error:
        _say(name, str(error))
        code = EXIT_PROBLEM
    except OSError as error:
        if error.filename is None:
            raise
        _say(
            name, f"{error.filename}: {error.strerror}. check the path, its permissions and space."
        )
        code = EXIT_PROBLEM
    except KeyboardInterrupt as stop:
        _say(name, f"interrupted: {stop}" if str(stop) else "interrupted")
        code = EXIT_INTERRUPTED
    raise SystemExit(code)
