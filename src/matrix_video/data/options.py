"""The options of a command that reads clips: how long, how large, how many.

One set of names for every command, so that what was analysed is what is trained and generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matrix_video.services.errors import MatrixError

if TYPE_CHECKING:
    from matrix_video.data.transform import ClipTransform


class ClipOptions(BaseModel):
    """Which part of a data set's clips a command takes, and at what size."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    fps: float | None = Field(default=None, gt=0)
    """Frame rate to sample clips at; None: their own."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip; None: all."""
    height: int | None = Field(default=None, ge=1)
    """Rows to resize to; None: as stored."""
    width: int | None = Field(default=None, ge=1)
    """Columns to resize to; None: as stored."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first so many samples alone."""
    leave_out: bool = False
    """Go on without clips that cannot be taken, such as short or damaged ones, instead of refusing
    them all at once."""

    @model_validator(mode="after")
    def _whole_size(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise MatrixError(
                "only one of height and width is given",
                remedy="Give both, or none",
                field="height" if self.height is None else "width",
            )
        return self

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) to resize to."""
        if self.height is None or self.width is None:
            return None
        return self.height, self.width

    def transform(self) -> ClipTransform:
        """What happens to each clip between disk and model."""
        # Here, because the command line's help needs the options and no video library.
        from matrix_video.data.transform import ClipTransform

        return ClipTransform(fps=self.fps, num_frames=self.num_frames, size=self.size)
