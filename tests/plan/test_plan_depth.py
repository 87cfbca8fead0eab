"""Which layers stand for which."""

from matrix_video.plan.depth import shortened


def _names(count: int, group: str = "blocks") -> list[str]:
    return [f"{group}.{i}" for i in range(count)]


def test_rows_of_like_layers_become_three() -> None:
    kinds = ["a"] * 5 + [None] + ["a"] * 4
    depth = shortened(_names(10), kinds, {"num_layers": 10})
    assert depth.runs == ((0,), (1, 2, 3), (4,), (5,), (6,), (7, 8), (9,))
    assert depth.config == {"num_layers": 7}
    assert depth.short([5]) == (3,)
    assert depth.short([2]) == (1,)


def test_layers_that_stand_for_themselves_are_kept() -> None:
    depth = shortened(_names(4), [None] * 4, {"num_layers": 4})
    assert depth.runs == ((0,), (1,), (2,), (3,))


def test_lists_of_layers_are_shortened_apart() -> None:
    names = _names(5, "transformer_blocks") + _names(6, "single_transformer_blocks")
    config = {"num_layers": 5, "num_single_layers": 6}
    depth = shortened(names, ["a"] * 11, config)
    assert depth.runs == ((0,), (1, 2, 3), (4,), (5,), (6, 7, 8, 9), (10,))
    assert depth.config == {"num_layers": 3, "num_single_layers": 3}


def test_a_model_that_does_not_say_its_depth_stays_whole() -> None:
    depth = shortened(_names(6), ["a"] * 6, {"depth": 6})
    assert len(depth.runs) == 6
    assert depth.config == {}
