"""The lines of ``metadata.jsonl``, read leniently so that one mistake does not hide the next.

``data.metadata`` stops at a line's first contradiction, which is right for loading. A check wants
them all, and wants to go on to the line's video and tracks whatever else is wrong with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from matrix_video.data.check.report import Findings
from matrix_video.data.sample import Instance, Interaction, Sample, Span

_CORRECT = "Correct this line, or remove it"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Line:
    """What can be used of one line: id, file name and caption are None where they are wrong."""

    number: int
    id: str | None
    file_name: str | None
    caption: str | None
    scene: str | None
    instances: tuple[Instance, ...]
    interactions: tuple[Interaction, ...]

    def at(self, field: str) -> str:
        return f"line {self.number}: {field}"

    def instance(self, id: str) -> Instance | None:
        return next((i for i in self.instances if i.id == id), None)


def read_lines(path: Path, raw: bytes, found: Findings) -> list[Line]:
    """Every line that holds an object; all problems of all lines go to ``found``."""
    lines: list[Line] = []
    ids: dict[str, int] = {}
    files: dict[str, int] = {}
    for number, text in enumerate(raw.split(b"\n"), start=1):
        if not text.strip():
            continue
        line = _read_line(path, number, text, found)
        if line is None:
            continue
        if line.id is not None and line.id in ids:
            found.problem(
                path,
                line.at("id"),
                f"{line.id!r} is already the id of line {ids[line.id]}",
                "Give every sample an id of its own, or remove one line",
            )
            continue
        if line.id is not None:
            ids[line.id] = number
        if line.file_name is not None and line.file_name in files:
            found.problem(
                path,
                line.at("file_name"),
                f"{line.file_name!r} is already the video of line {files[line.file_name]}",
                "Give every sample a video file of its own",
            )
        elif line.file_name is not None:
            files[line.file_name] = number
        lines.append(line)
    return lines


def _read_line(path: Path, number: int, text: bytes, found: Findings) -> Line | None:
    place = f"line {number}"
    try:
        value = json.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        found.problem(path, place, f"this is not a line of JSON ({error})", _CORRECT)
        return None
    if not isinstance(value, dict):
        found.problem(path, place, f"expected a JSON object, found {_kind(value)}", _CORRECT)
        return None
    fields = cast("dict[str, Any]", value)
    before = len(found.problems)
    whole: list[str] = []
    wrong: set[str | int] = set()
    try:
        Sample.model_validate_json(text)
    except ValidationError as error:
        for item in error.errors():
            if not item["loc"]:  # the sample contradicts itself: _ids and _spans say how
                whole.append(item["msg"].removeprefix("Value error, "))
                continue
            wrong.add(item["loc"][0])
            field = f"{place}: " + ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                found.problem(path, field, "unknown field", "Remove it, or correct its name")
            else:
                problem = item["msg"].removeprefix("Value error, ")
                found.problem(path, field, problem, _CORRECT)
    name, file_name = fields.get("id"), fields.get("file_name")
    caption, scene = fields.get("caption"), fields.get("scene")
    line = Line(
        number=number,
        id=name if isinstance(name, str) and "id" not in wrong else None,
        file_name=file_name if isinstance(file_name, str) and "file_name" not in wrong else None,
        caption=caption if isinstance(caption, str) else None,
        scene=scene if isinstance(scene, str) else None,
        instances=_each(fields.get("instances"), Instance),
        interactions=_each(fields.get("interactions"), Interaction),
    )
    _ids(path, line, found)
    if line.caption is not None:
        _spans(path, line, line.caption, found)
    if whole and len(found.problems) == before:  # a rule that we do not know of: its own words
        found.problem(path, place, "; ".join(whole), _CORRECT)
    return line


def _each(value: object, model: type[_Model]) -> tuple[_Model, ...]:
    """The entries that are valid by themselves; the others were reported field by field."""
    good: list[_Model] = []
    for entry in cast("list[object]", value) if isinstance(value, list) else []:
        try:
            good.append(model.model_validate_json(json.dumps(entry)))
        except ValidationError:
            continue
    return tuple(good)


def _ids(path: Path, line: Line, found: Findings) -> None:
    known = [instance.id for instance in line.instances]
    for name, count in Counter(known).items():
        if count > 1:
            found.problem(
                path,
                line.at(f"instances.{name}"),
                f"{count} instances have the id {name!r}",
                "Give every instance an id of its own",
            )
    for index, interaction in enumerate(line.interactions):
        for role, name in (("subject", interaction.subject), ("object", interaction.object)):
            if name not in known:
                found.problem(
                    path,
                    line.at(f"interactions[{index}].{role}"),
                    f"{name!r} is not among the instances {known}",
                    "Name an instance of this sample, or remove the interaction",
                )


def _spans(path: Path, line: Line, caption: str, found: Findings) -> None:
    for index, interaction in enumerate(line.interactions):
        if interaction.verb_span is not None:
            field = f"interactions[{index}].verb_span"
            _span(path, line, caption, field, interaction.verb_span, found)
    for instance in line.instances:
        noun = _is_noun(instance.noun)
        for k, span in enumerate(instance.noun_spans):
            field = f"instances.{instance.id}.noun_spans[{k}]"
            if _span(path, line, caption, field, span, found) and not noun(span.of(caption)):
                found.problem(
                    path,
                    line.at(field),
                    f"the span reads {span.of(caption)!r}, but the noun is {instance.noun!r}",
                    "Move the span onto the noun, or correct the noun",
                )
        for k, span in enumerate(instance.mentions):
            field = f"instances.{instance.id}.mentions[{k}]"
            good = _span(path, line, caption, field, span, found)
            if good and not _is_mention(caption, instance, span):
                found.problem(
                    path,
                    line.at(field),
                    f"the span reads {span.of(caption)!r}, which is neither the phrase "
                    f"{instance.phrase!r} nor a phrase around the noun {instance.noun!r}",
                    "Move the span onto the mention, or correct the phrase",
                )


def _span(path: Path, line: Line, caption: str, field: str, span: Span, found: Findings) -> bool:
    """Whether the span lies in the caption, on whole words; says so where it does not."""
    if span.end > len(caption):
        found.problem(
            path,
            line.at(field),
            f"span [{span.start}, {span.end}) ends after the caption's {len(caption)} characters",
            "Correct the span",
        )
        return False
    text = span.of(caption)
    if text != text.strip() or _inside_word(caption, span.start) or _inside_word(caption, span.end):
        found.problem(
            path,
            line.at(field),
            f"span [{span.start}, {span.end}) reads {text!r}, which is not whole words",
            "Let the span begin and end with a word",
        )
        return False
    return True


def _inside_word(caption: str, cut: int) -> bool:
    """Between two ASCII letters or digits; other scripts may write words without spaces."""
    around = caption[cut - 1 : cut + 1] if cut else ""
    return len(around) == 2 and around.isascii() and around.isalnum()


def _is_noun(noun: str) -> Callable[[str], bool]:
    """The noun or a plain plural of it, in any case."""
    base = noun.casefold()
    forms = {base, base + "s", base + "es", base[:-1] + "ies" if base.endswith("y") else base}
    return lambda text: text.casefold() in forms


def _is_mention(caption: str, instance: Instance, span: Span) -> bool:
    text = span.of(caption)
    if text.casefold() == instance.phrase.casefold():
        return True
    noun = _is_noun(instance.noun)
    words = text.split()
    length = len(instance.noun.split())
    runs = (" ".join(words[k : k + length]) for k in range(len(words)))
    inside = any(
        span.start <= n.start and n.end <= span.end and n.end <= len(caption)
        for n in instance.noun_spans
    )
    return inside or any(noun(run) for run in runs)


def _kind(value: object) -> str:
    names: dict[type[object], str] = {
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")
