"""The one paragraph that users read."""

from pathlib import Path

from matrix_video.services.errors import MatrixError


def test_an_error_names_place_problem_and_remedy() -> None:
    error = MatrixError("it is broken.", remedy="mend it", file=Path("a/b.json"), field="x")
    assert str(error) == "a/b.json: x: it is broken. mend it."
    assert str(MatrixError("it is broken", remedy="mend it.")) == "it is broken. mend it."
