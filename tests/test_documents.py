"""What documents and scripts show is there, parses, and works in the order in which it stands."""

import importlib
import importlib.util
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tyro
from pydantic import BaseModel

from matrix_video.cli import COMMANDS, parse

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/matrix_video"
README = ROOT / "README.md"
CARD = PACKAGE / "models/tiny/README.md"
DOCUMENTS = [README, CARD, *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted((ROOT / "runs").glob("*.sh"))
INTO_A_FOLDER = [script for script in SCRIPTS if script.name != "ablation-tiny.sh"]
"""Those whose first argument is where they write; the ablation's place is always the same."""
MODULES = {
    "matrix_video.recipes.pretrain_tiny": ("matrix_video.recipes.pretrain_tiny", "PretrainTiny"),
    "ablation": ("ablation.__main__", "COMMANDS"),
    "tiny": ("tiny.__main__", "Pretrain"),
}
"""What scripts start by `python -m`, each with what its command line is parsed into."""
ROW = {"out", "sga", "spa", "id_map"}
"""Options of a training in which the rows of the comparison differ."""
READS = (
    "data val_data base val prompts videos layers labels adapter against path others source runs"
)
WRITES = ("out", "target")
"""Options that name what a command reads, and what it writes."""


@pytest.fixture(autouse=True)
def _experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the scripts set them: where experiments are, and (here) one process at a time."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.setenv("WORKERS", "1")


def _parse(words: Sequence[str]) -> tuple[str, Any]:
    """Name and configuration of ``matrix …`` or ``python -m MODULE …``; exits as the program."""
    if words[0] == "matrix":
        return parse(words[1:])
    assert words[:2] == ["python", "-m"], words
    module = words[2]
    place, name = MODULES[module]
    target = getattr(importlib.import_module(place), name)
    return module, tyro.cli(target, args=list(words[3:]))


def _paths(config: Any, names: Sequence[str]) -> list[Path]:
    """The paths that these options hold; ``NAME=FOLDER`` is its folder."""
    found: list[Path] = []
    for name in names:
        value = vars(config).get(name)
        values = value if isinstance(value, tuple) else (value,)
        # Not a number: `prompts` of a report is how many.
        given = [str(one) for one in values if isinstance(one, str | Path)]
        found += [Path(one.rpartition("=")[2]) for one in given]
    return found


def _follow(commands: Sequence[Sequence[str]]) -> list[tuple[str, Any]]:
    """Parse in order; a command reads only what an earlier one writes, and none writes again."""
    written: set[Path] = set()
    parsed: list[tuple[str, Any]] = []
    for words in commands:
        name, config = _parse(words)
        for path in _paths(config, READS.split()):
            assert written & {path, *path.parents}, f"{path} is not there yet: {words}"
        for path in _paths(config, WRITES):
            assert path not in written, f"{path} is written twice: {words}"
            written.add(path)
        parsed.append((name, config))
    return parsed


# -- documents -------------------------------------------------------------------------------------


def _blocks(document: Path, program: str) -> list[list[str]]:
    """Every ``program …`` line of the fenced blocks, continuation lines joined."""
    found: list[list[str]] = []
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", document.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix(".venv/bin/"), comments=True)
            if words[:1] == [program]:
                found.append(words)
    return found


def _mentions(document: Path) -> list[list[str]]:
    """Every `matrix …` in running text, with what a mention may leave out put in."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    found: list[list[str]] = []
    for mention in re.findall(r"`(?:\.venv/bin/)?(matrix [^`]+)`", text):
        words = shlex.split(mention)
        module, config = COMMANDS.get(words[1], ("", ""))
        cls = getattr(importlib.import_module(module), config) if module else object
        if issubclass(cls, BaseModel):
            for name, field in cls.model_fields.items():
                option = f"--{name.replace('_', '-')}"
                if field.is_required() and option not in words:
                    words += [option, "x"]
        elif len(words) == 2:
            words += ["x", "y"]  # positional: check and convert
        found.append(words)
    return found


def _id(words: object) -> str:
    return " ".join(words) if isinstance(words, list) else getattr(words, "name", str(words))


def test_the_readme_works_in_its_order() -> None:
    shown = {name for name, _ in _follow(_blocks(README, "matrix"))}
    assert set(COMMANDS) == shown


@pytest.mark.parametrize("words", [w for d in DOCUMENTS for w in _blocks(d, "matrix")], ids=_id)
def test_shown_commands_parse(words: list[str]) -> None:
    assert _parse(words)[0] == words[1]


@pytest.mark.parametrize("words", [w for d in DOCUMENTS for w in _mentions(d)], ids=_id)
def test_mentioned_commands_parse(words: list[str]) -> None:
    assert _parse(words)[0] == words[1]


def test_shown_benchmarks_parse() -> None:
    shown = [w for d in DOCUMENTS for w in _blocks(d, "python") if w[1].startswith("benchmarks/")]
    assert len(shown) > 1
    for words in shown:
        spec = importlib.util.spec_from_file_location("shown", ROOT / words[1])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "shown", module)
            spec.loader.exec_module(module)
            (options,) = (v for n, v in vars(module).items() if n.endswith("Benchmark"))
            tyro.cli(options, args=words[2:])


def test_a_wrong_option_in_a_mention_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("so `matrix world\n--split val` and `matrix world --spilt val`")
    right, wrong = _mentions(document)
    assert _parse(right)[1].split == "val"
    with pytest.raises(SystemExit):
        _parse(wrong)


def test_shown_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shown = {words[1] for document in DOCUMENTS for words in _blocks(document, "make")}
    for document in DOCUMENTS:
        shown.update(re.findall(r"`make ([a-z-]+)`", document.read_text()))
    assert {"demo", "test"} <= shown <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shown_files_exist(document: Path) -> None:
    text = document.read_text()
    for path in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (document.parent / path).exists(), path
    for path in re.findall(r"`((?:benchmarks|docs|runs|src|tests)/[\w./-]+\.(?:md|py|sh))`", text):
        assert (ROOT / path).exists(), path


def test_the_paper_map_names_files_that_exist() -> None:
    lines = (ROOT / "docs/paper-map.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")][2:]
    assert len(rows) > 10
    for row in rows:
        paths = re.findall(r"`([^`]+)`", row[1])
        assert paths, row
        for path in paths:
            assert (PACKAGE / path).exists(), path
        for path in re.findall(r"`([\w/.-]+(?:\.py|/))`", row[2]):
            assert (PACKAGE / path).exists(), path


def test_the_skips_name_every_test_that_is_left_out() -> None:
    told = (ROOT / "docs/skips.md").read_text()
    for test in (ROOT / "tests").rglob("test_*.py"):
        for marker in re.findall(r"pytest\.mark\.(real|gpu|slow)\b", test.read_text()):
            rows = [row for row in told.splitlines() if row.startswith(f"| `{marker}` |")]
            assert f"`{test.relative_to(ROOT)}`" in rows[0], (test, marker)


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    tree = re.findall(r"^  (\w+)/ ", text, re.MULTILINE)
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert len(tree) == len(set(tree))
    assert set(tree) == folders


# -- scripts ---------------------------------------------------------------------------------------


def _calls(script: str, folder: Path, *arguments: str) -> list[list[str]]:
    """Run a script whose programs only write down how they were called."""
    programs, calls = folder / ".venv/bin", folder / "calls"
    for made in (programs, calls):
        made.mkdir(parents=True)
    for name in ("matrix", "python"):
        stub = programs / name
        stub.write_text(
            "#!/bin/bash\n"
            f"printf '%s\\0' {name} \"$@\" > {shlex.quote(str(calls))}/$(ls calls | wc -l)\n"
        )
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    (folder / "script.sh").write_text(script)
    subprocess.run(["bash", "script.sh", *arguments], cwd=folder, check=True)
    made = sorted(calls.iterdir(), key=lambda path: int(path.name))
    return [path.read_bytes().decode().split("\0")[:-1] for path in made]


@pytest.mark.parametrize("script", SCRIPTS, ids=_id)
def test_scripts_work_in_their_order(script: Path, tmp_path: Path) -> None:
    assert _follow(_calls(script.read_text(), tmp_path))


@pytest.mark.parametrize("script", INTO_A_FOLDER, ids=_id)
def test_scripts_write_into_the_given_folder_alone(script: Path, tmp_path: Path) -> None:
    parsed = _follow(_calls(script.read_text(), tmp_path, "a folder"))
    for _, config in parsed:
        for path in _paths(config, (*READS.split(), *WRITES)):
            assert path.parts[0] == "a folder"


def test_a_wrong_option_in_a_script_is_found(tmp_path: Path) -> None:
    script = (ROOT / "runs/train-tiny.sh").read_text()
    for number, wrong in enumerate((("--clips", "--clipz"), ("--base", "--bases"))):
        assert wrong[0] in script
        calls = _calls(script.replace(*wrong), tmp_path / str(number))
        with pytest.raises(SystemExit):
            _follow(calls)


def test_options_of_the_training_script_are_handed_on(tmp_path: Path) -> None:
    script = (ROOT / "runs/train-tiny.sh").read_text()
    *_, (_, config) = _follow(_calls(script, tmp_path, "o", "--dit.steps", "3"))
    assert config.dit.steps == 3


def test_the_comparison_is_at_equal_terms(tmp_path: Path) -> None:
    script = (ROOT / "runs/compare-tiny.sh").read_text()
    splits = ("test-iid", "test-composition")
    parsed = _follow(_calls(script, tmp_path, "o", *splits))
    trained = {
        config.out.name: (config.sga, config.spa, config.id_map)
        for name, config in parsed
        if name == "train"
    }
    assert trained == {
        "train-lora": (0, 0, False),
        "train-lora-idmap": (0, 0, True),
        "train-matrix-noid": (0.02, 0.01, False),
        "train-matrix": (0.02, 0.01, True),
    }
    terms = [c.model_dump(exclude=ROW) for name, c in parsed if name == "train"]
    assert terms == terms[:1] * 4
    for split in splits:
        scores = [c for name, c in parsed if name == "evaluate" and c.out.parent.name == split]
        # Null rows and ceiling are the prompts' own: once a split.
        assert [c.out.name for c in scores if c.nulls] == ["scores-base"]
        assert [c.out.name for c in scores if c.model] == ["scores-base"]
        against = {c.out.name: [path.name for path in c.against] for c in scores}
        assert against == {
            "scores-base": [],
            "scores-lora": ["scores-base"],
            "scores-lora-idmap": ["scores-base"],
            "scores-matrix-noid": ["scores-base", "scores-lora"],
            "scores-matrix": ["scores-base", "scores-lora-idmap"],
        }
