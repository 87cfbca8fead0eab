"""The command line: help, exit codes, error text."""

import ast
import importlib
import inspect
import itertools
import pkgutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from matrix_video import cli, recipes
from matrix_video.services.errors import MatrixError

HEAVY = ("torch", "diffusers", "transformers", "scipy", "matplotlib", "av", "pyarrow")
"""Packages that `matrix --help` must not wait for."""
NO_COMMANDS = {"demo_stages", "pretrain_tiny", "settings", "watch"}
"""Recipes that `matrix` has no command for: `matrix demo` runs the first, runs/*.sh start the
second, `--recipe` names those of the third, and training is watched by the last."""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "matrix_video", *arguments], capture_output=True, text=True
    )


class Stand:
    """A recipe that ends as it is told to."""

    def __init__(self, error: BaseException | None = None, code: int = 0) -> None:
        self.error, self.code = error, code

    def run(self, config: object) -> int:
        if self.error is not None:
            raise self.error
        return self.code


def _main(monkeypatch: pytest.MonkeyPatch, stand: Stand) -> int:
    """Exit code of `matrix check x` when the recipe is the stand-in."""
    monkeypatch.setattr(cli, "_recipe", lambda name: stand)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.main(["check", "x"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(end.value.code, int)
    return end.value.code


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from matrix_video import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert name in done.stdout


def test_every_recipe_is_a_command() -> None:
    modules = {module.name for module in pkgutil.iter_modules(recipes.__path__)}
    commands = {module.rpartition(".")[2] for module, _ in cli.COMMANDS.values()}
    assert {name for name in modules if not name.startswith("_")} - NO_COMMANDS == commands


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_and_option_is_explained(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.parse([name, "--help"])
    assert end.value.code == 0
    assert f"usage: matrix {name}" in capsys.readouterr().out
    module, class_name = cli.COMMANDS[name]
    config = getattr(importlib.import_module(module), class_name)
    assert config.__doc__
    fields = [
        field
        for cls in config.__mro__
        if cls.__module__.startswith("matrix_video.")
        for field in _fields(cls)
    ]
    assert fields
    assert [field for field, explained in fields if not explained] == []


def _fields(cls: type) -> list[tuple[str, bool]]:
    """Fields of a class body, each with whether a docstring follows it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found: list[tuple[str, bool]] = []
    for statement, following in itertools.zip_longest(tree.body, tree.body[1:]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            explained = isinstance(following, ast.Expr) and isinstance(
                following.value, ast.Constant
            )
            found.append((statement.target.id, explained))
    return found


@pytest.mark.parametrize("arguments", [["world", "--clipz", "3"], ["check"], ["wrld"], []])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.parse(arguments)
    assert end.value.code == 2
    assert "help" in capsys.readouterr().err


def test_an_error_is_one_paragraph_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("a") / ("long-" * 30) / "b.json"
    error = MatrixError("the [id] is unknown", remedy="use one of these", file=file, field="x")
    assert _main(monkeypatch, Stand(error)) == 1
    assert capsys.readouterr().err == (
        f"matrix check: {file}: x: the [id] is unknown. use one of these.\n"
    )


def test_no_traceback_reaches_the_user(tmp_path: Path) -> None:
    done = _run("convert", str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"matrix convert: {tmp_path}/nowhere: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_refused_value_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["analyze", "--data", "x", "--out", "y", "--levels", "0"])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "levels" in told
    assert "greater than or equal to 1" in told


def test_a_place_that_fails_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(36, "File name too long", "a/b")
    assert _main(monkeypatch, Stand(error)) == 1
    assert capsys.readouterr().err == (
        "matrix check: a/b: File name too long. check the path, its permissions and space.\n"
    )


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_recipe", lambda name: Stand(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        cli.main(["check", "x"])


@pytest.mark.parametrize("code", [0, 1])
def test_the_recipes_code_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert _main(monkeypatch, Stand(code=code)) == code


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_no_half_file_and_goes_on(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    out = tmp_path / "w"
    arguments = ["world", "--out", str(out), "--clips", "100000", "--split", "val"]
    with subprocess.Popen(
        [sys.executable, "-m", "matrix_video", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and so all that they start, are deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        until = time.monotonic() + 60
        while len(list(out.glob("tracks/*.json"))) < 2:
            assert time.monotonic() < until
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(sent)
        _, errors = running.communicate(timeout=120)
    assert running.returncode == code
    assert "Traceback" not in errors
    assert list(out.rglob(".partial-*")) == []
    assert not (out / "metadata.jsonl").exists()
    finished = len(list(out.glob("tracks/*.json")))
    assert (
        _run("world", "--out", str(out), "--clips", str(finished), "--split", "val").returncode == 0
    )
    assert _run("check", str(out)).returncode == 0
