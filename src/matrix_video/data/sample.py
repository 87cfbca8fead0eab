"""What a clip says: instances, interactions, and the caption phrases that name them.

Source: paper section 3 (instances, interactions, mask tracks); the span layout is our choice.
All spans are half-open character ranges ``[start, end)`` of ``Sample.caption``.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matrix_video.data.paths import VideoPath

Category = Literal["contact", "force", "transport", "manipulation", "social"]
Role = Literal["subject", "object", "verb"]


class Record(BaseModel):
    """Base of everything that is stored in ``metadata.jsonl``: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(Record):
    """Half-open character range of the caption."""

    start: int = Field(ge=0)
    end: int

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"span [{self.start}, {self.end}) is empty; end must exceed start")
        return self

    def of(self, caption: str) -> str:
        return caption[self.start : self.end]


class Instance(Record):
    """One individual of the clip.

    ``mentions`` are the caption's full mentions in order (without their article: "small red
    ball"); ``noun_spans`` the class nouns alone. Both may be empty: an instance that no phrase
    names is legal.
    """

    id: str = Field(pattern=r"^id[1-9][0-9]*$")
    noun: str = Field(min_length=1)
    phrase: str = Field(min_length=1, description="appearance phrase, e.g. 'small red ball'")
    mentions: tuple[Span, ...] = ()
    noun_spans: tuple[Span, ...] = ()
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


class Sample(Record):
    """One line of ``metadata.jsonl``. Pixels and masks are loaded by ``data.dataset``."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    file_name: VideoPath = Field(
        description="video path relative to the data set, POSIX separators"
    )
    caption: str
    instances: tuple[Instance, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    source: str | None = None
    scene: str | None = Field(default=None, description="scene key; equal keys share pixels")
    scores: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [instance.id for instance in self.instances]
        if len(set(ids)) != len(ids):
            raise ValueError(f"instances: ids must be unique, got {ids}")
        for index, interaction in enumerate(self.interactions):
            for role, name in (("subject", interaction.subject), ("object", interaction.object)):
                if name not in ids:
                    raise ValueError(
                        f"interactions[{index}].{role}: {name!r} is not among the instances {ids}"
                    )
        for where, span in self._spans():
            if span.end > len(self.caption):
                raise ValueError(
                    f"{where}: span [{span.start}, {span.end}) ends after the caption's "
                    f"{len(self.caption)} characters"
                )
        return self

    def _spans(self) -> list[tuple[str, Span]]:
        found: list[tuple[str, Span]] = []
        for instance in self.instances:
            found += [(f"instances.{instance.id}.mentions", s) for s in instance.mentions]
            found += [(f"instances.{instance.id}.noun_spans", s) for s in instance.noun_spans]
        for index, interaction in enumerate(self.interactions):
            if interaction.verb_span is not None:
                found.append((f"interactions[{index}].verb_span", interaction.verb_span))
        return found

    def instance(self, id: str) -> Instance:
        """The instance with this id; ``KeyError`` names the ids that exist."""
        for instance in self.instances:
            if instance.id == id:
                return instance
        raise KeyError(f"{id!r} not among {[instance.id for instance in self.instances]}")
