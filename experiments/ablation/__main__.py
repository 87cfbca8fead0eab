"""``python -m ablation run | table | plan``, with ``experiments`` on the path."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from ablation.results import FOLDER, Result, folder, read_results, write_result
from ablation.rows import PROBES, TITLES, Pair, pairs
from ablation.settings import FILE, Settings, Split, read_settings
from ablation.table import make_table, markdown, resolvable, short, training_seeds
from ablation.work import Workshop, commit, held
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_atomic, write_json
from matrix_video.services.signals import EXIT_TERMINATED

Pairs = tuple[Pair, ...]


@dataclass(frozen=True)
class Common:
    """What is worked on."""

    split: Split = "val"
    """Prompts: val for pilots, test for the reported run alone."""
    fraction: float = 1.0
    """Share of updates, training clips, prompts and training seeds; below 1 on val alone."""
    results: Path = FOLDER
    """Folder of the small files that stay."""
    settings: Path = FILE
    """The frozen settings."""

    def __post_init__(self) -> None:
        if self.split == "test" and self.fraction != 1:
            raise MatrixError(
                f"a fraction of {self.fraction:g} on the test prompts, which are scored once",
                remedy="Make pilots on val",
                field="fraction",
            )

    @property
    def scaled(self) -> Settings:
        return read_settings(self.settings).scaled(self.fraction)

    @property
    def where(self) -> Path:
        return folder(self.results, self.split, self.fraction)

    def known(self) -> dict[Pair, Result]:
        settings = self.scaled
        return read_results(self.where, settings, pairs(settings, self.split))


@dataclass(frozen=True)
class Run(Common):
    """Make what is missing, row by row, and the table of what there is."""

    out: Path = Path("out/ablation")
    """Folder for data, adapters and videos."""
    seconds: float | None = None
    """Begin no row that would end later than so many seconds from now if it took as long as the
    longest so far; one is made in any case."""
    rows: tuple[str, ...] = ()
    """These rows alone, probes too; none: all but the probes."""
    commit: bool = False
    """Commit each row's file when it is done."""


@dataclass(frozen=True)
class Table(Common):
    """Print the table of what there is; also written beside the results."""


@dataclass(frozen=True)
class Plan(Common):
    """Say what is done, what is missing, and which difference the whole can resolve."""


def run(options: Run) -> None:
    """Raises `MatrixError` for results of other settings, before anything is computed."""
    started = time.monotonic()
    known = (*TITLES, *PROBES) if options.split == "val" else tuple(TITLES)
    for name in options.rows:
        if name not in known:
            raise MatrixError(
                f"there is no row {name!r} on {options.split}",
                remedy=f"Choose of {', '.join(known)}",
                field="rows",
            )
    if missing(options):
        settings = options.scaled
        shop = Workshop(options.out, settings, options.split)
        shop.prepare()
        longest = 0.0
        for pair, work in claimed(options):
            begun = time.monotonic()
            print(f"{pair.name}: begun", flush=True)
            file = write_result(options.where, shop.make(pair, work))
            if options.commit:
                with held(options.out, wait=True):  # git takes one commit at a time
                    commit(file)
            now = time.monotonic()
            longest = max(longest, now - begun)
            print(f"{pair.name}: done in {now - begun:.0f} s", flush=True)
            if options.seconds is not None and now - started + longest > options.seconds:
                print(f"{len(missing(options))} to be made; run the same command again")
                break
    show(options)


def missing(options: Run) -> Pairs:
    """Pairs without a result, in the order of the work."""
    known = options.known()
    wanted = options.rows or tuple(TITLES)
    every = pairs(options.scaled, options.split)
    return tuple(pair for pair in every if pair not in known and pair.row in wanted)


def claimed(options: Run) -> Iterator[tuple[Pair, Path]]:
    """The next missing pair that no other process works on, again and again, and its folder."""
    root = folder(options.out, options.split, options.fraction)
    while True:
        for pair in missing(options):
            work = root / pair.name
            with held(work, wait=False) as free:
                if free and pair in missing(options):
                    yield pair, work
                    break
        else:
            return


def show(options: Common) -> None:
    """Write ``table.md``, ``short.md`` (of the README) and ``table.json`` beside the results, and
    print the first."""
    known = options.known()
    if not known:
        print(f"no result in {options.where}")
        return
    table = make_table(known, options.scaled, options.split, options.fraction)
    text = markdown(table)
    write_json(options.where / "table.json", table)
    write_atomic(options.where / "table.md", text)
    write_atomic(options.where / "short.md", short(table))
    print(text)


def plan(options: Plan) -> None:
    settings, known = options.scaled, options.known()
    for pair in pairs(settings, options.split):
        state = "done" if pair in known else "probe" if pair.row in PROBES else "missing"
        print(f"{state:<7}  {pair.name}")
    seeds = training_seeds(settings, options.split)
    for (deviation, repeated), found in resolvable(settings, seeds).items():
        print(
            f"detectable difference of IF {found:.4f}: deviation {deviation:g}, of which "
            f"{repeated:.0%} is the prompt's own with every training seed"
        )


COMMANDS: Final = Annotated[
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Table, tyro.conf.subcommand("table")]
    | Annotated[Plan, tyro.conf.subcommand("plan")],
    tyro.conf.OmitArgPrefixes,
]


def main() -> None:
    """Errors of ours are one line and exit code 1; SIGTERM ends with 143."""

    def terminate(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, terminate)
    try:
        options = tyro.cli(COMMANDS, prog="ablation")
        if isinstance(options, Run):
            run(options)
        elif isinstance(options, Table):
            show(options)
        else:
            plan(options)
    except MatrixError as error:
        print(f"ablation: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
