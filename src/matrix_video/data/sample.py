"""What a clip says: instances, interactions, and the caption phrases that name them.

Source: paper section 3 (instances, interactions, mask tracks); the span layout is our choice.
All spans are half-open character ranges ``[start, end)`` of ``Sample.caption``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matrix_video.data.paths import VideoPath
from matrix_video.services.errors import MatrixError

Category = Literal["contact", "force", "transport", "manipulation", "social"]
Role = Literal["subject", "object", "verb"]
_MOST: Final = 1000
"""Instances, interactions, mentions, characters of one phrase: more than any caption has."""


class Record(BaseModel):
    """Base of everything that is stored in ``metadata.jsonl``: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Span(Record):
    """Half-open character range of the caption."""

    start: int = Field(ge=0, lt=1 << 31)
    end: int = Field(lt=1 << 31)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"span [{self.start}, {self.end}) is empty; end must exceed start")
        if self.end > self.start + _MOST:
            raise ValueError(f"span [{self.start}, {self.end}) has more than {_MOST} characters")
        return self

    def of(self, caption: str) -> str:
        return caption[self.start : self.end]


class Instance(Record):
    """One individual of the clip.

    ``mentions`` are the caption's full mentions in order (without their article: "small red
    ball"); ``noun_spans`` the class nouns alone. Both may be empty: an instance that no phrase
    names is legal.
    """

    id: str = Field(pattern=r"^id[1-9][0-9]{0,8}$")
    noun: str = Field(min_length=1)
    phrase: str = Field(min_length=1, description="appearance phrase, e.g. 'small red ball'")
    mentions: tuple[Span, ...] = Field(default=(), max_length=_MOST)
    noun_spans: tuple[Span, ...] = Field(default=(), max_length=_MOST)
    doubtful: bool = Field(default=False, description="noun or mentions were guessed: look at them")


class Interaction(Record):
    """Subject, verb phrase, object; scores 1-5 as in the paper's curation (None: not scored)."""

    subject: str
    verb: str = Field(min_length=1, description="base verb or verb phrase, e.g. 'push'")
    object: str
    verb_span: Span | None = None
    bidirectional: bool = False
    category: Category | None = None
    contact: int | None = Field(default=None, ge=1, le=5)
    dynamism: int | None = Field(default=None, ge=1, le=5)


class Draft(Record):
    """A sample whose parts are valid by themselves; `contradictions` says how they go together."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    file_name: VideoPath = Field(
        description="video path relative to the data set, POSIX separators"
    )
    caption: str
    instances: tuple[Instance, ...] = Field(default=(), max_length=_MOST)
    interactions: tuple[Interaction, ...] = Field(default=(), max_length=_MOST)
    source: str | None = None
    scene: str | None = Field(default=None, description="scene key; equal keys share pixels")
    scores: dict[str, float] = Field(default_factory=dict)

    def instance(self, id: str) -> Instance:
        """The instance with this id; ``KeyError`` names the ids that exist."""
        for instance in self.instances:
            if instance.id == id:
                return instance
        raise KeyError(f"{id!r} not among {[instance.id for instance in self.instances]}")


class Sample(Draft):
    """One line of ``metadata.jsonl``. Pixels and masks are loaded by ``data.dataset``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for error in contradictions(self):
            raise ValueError(f"{error.field}: {error.problem}")
        return self


def contradictions(draft: Draft) -> list[MatrixError]:
    """Where the parts of a sample do not go together: ids, references, spans out of the caption."""
    ids = [instance.id for instance in draft.instances]
    found = [
        MatrixError(
            f"{name!r} is the id of {ids.count(name)} instances",
            remedy="Give every instance an id of its own",
            field=f"instances[{index}].id",
        )
        for index, name in enumerate(ids)
        if name in ids[:index]
    ]
    found += [
        MatrixError(
            f"{name!r} is not among the instances {ids}",
            remedy="Name an instance of this sample, or remove the interaction",
            field=f"interactions[{index}].{role}",
        )
        for index, act in enumerate(draft.interactions)
        for role, name in (("subject", act.subject), ("object", act.object))
        if name not in ids
    ]
    found += [
        MatrixError(
            f"span [{span.start}, {span.end}) ends after the caption's {len(draft.caption)} "
            "characters",
            remedy="Correct the span",
            field=field,
        )
        for field, _, span in spans_of(draft)
        if span.end > len(draft.caption)
    ]
    return found


def spans_of(draft: Draft) -> Iterator[tuple[str, Instance | None, Span]]:
    """Every span of a sample, with the field that holds it and the instance that it names."""
    for index, instance in enumerate(draft.instances):
        for name, spans in (("mentions", instance.mentions), ("noun_spans", instance.noun_spans)):
            for k, span in enumerate(spans):
                yield f"instances[{index}].{name}[{k}]", instance, span
    for index, act in enumerate(draft.interactions):
        if act.verb_span is not None:
            yield f"interactions[{index}].verb_span", None, act.verb_span
