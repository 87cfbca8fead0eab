"""What stops a run that trains nothing."""

from __future__ import annotations

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.training.guards import STILL, Proof, Stillness


@pytest.mark.parametrize(("samples", "patience"), [(1, 32), (100, 100), (11_000, 1000)])
def test_a_term_without_a_map_is_found_in_time(samples: int, patience: int) -> None:
    """After an epoch, but neither by the first caption that is dropped nor after hours."""
    proof = Proof(["sga", "spa"])
    proof.expect(patience - 1, samples)
    with pytest.raises(
        MatrixError, match=f"SGA loss covers no token: none of the first {patience}"
    ):
        proof.expect(patience, samples)
    proof.open.discard("sga")
    with pytest.raises(MatrixError, match=r"spa: the SPA loss.*an instance in its first frame"):
        proof.expect(patience, samples)
    proof.open.clear()
    proof.expect(patience, samples)


def test_a_loss_that_stays_stops_the_run() -> None:
    still = Stillness()
    for step in range(STILL - 1):
        still.see({"diffusion": float(step), "sga": 1.5})
    with pytest.raises(MatrixError, match=r"data: the sga loss is 1\.5 to the last bit for 20"):
        still.see({"diffusion": 0.0, "sga": 1.5})


def test_samples_without_a_phrase_are_no_constant_loss() -> None:
    """They are 0 in the sum; at batch 1 many may follow one another."""
    still = Stillness()
    for step in range(3 * STILL):
        still.see({"diffusion": float(step + 1), "sga": 0.0 if step % STILL else 1.5 + step})


def test_a_loss_that_moves_once_is_counted_anew() -> None:
    still = Stillness()
    for step in range(3 * STILL):
        still.see({"spa": float(step // (STILL - 1))})
