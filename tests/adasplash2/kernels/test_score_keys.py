"""Does each row have exactly its live keys behind its entries, in order and with their products?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from staged import ALPHAS, ANY_WORDS, TILE, live_keys, own_places, score_matrices, staged

from adasplash2.problem import ROW_KEYS

FEW, FULL = 0, 3


def scored_keys(run, row):
    """Return how many live keys a row has, and the keys behind the entries of its program and their products."""
    tile, places = own_places(run, "score_keys", row)
    after = run.after["score_keys"]
    # A program has as many rows as a block here; rows that do not exist have no count.
    rows = min(TILE, run.problem.n_queries - row // TILE * TILE)
    first, n_live = int(after.counts[tile, :rows].max()), int(after.n_live[tile, row % TILE])
    places = places[first : first + n_live]
    return n_live, places & 0x7FFFFFFF, (places >> 32).astype(np.int32).view(np.float32)


@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_each_live_key_is_scored_once_and_in_order(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, row_entries=70, **ANY_WORDS)
    if run.problem.tiles_at_once < run.problem.n_tiles:
        return  # the scratch holds the last part only
    for row in range(len(z)):
        assert run.paths("collect")[row // TILE] == FEW
        expected = live_keys(run, row)
        n_live, keys, products = scored_keys(run, row)
        assert n_live == len(expected) and keys.tolist() == expected
        np.testing.assert_array_equal(products, z[row, expected])


@pytest.mark.parametrize("most_wide", [0, 1])
@pytest.mark.parametrize("entries, is_left", [(ROW_KEYS, 0), (ROW_KEYS + 1, 1)])
def test_a_program_without_room_is_left(entries, is_left, most_wide):
    """Where the block may not have one, all of it goes by tiles.

    Entries of two keys each: 128 keys and 64 entries fill all 192 places.  The support is those of ten entries."""
    z = np.full((TILE, 80 * TILE), -50.0, dtype=np.float32)
    live = np.arange(entries)[:, None] * TILE + np.arange(2)
    z[3, live] = -0.23
    z[:, :2] = 0.0
    z[3, live[:10]] = 0.0
    run = staged(z, row_entries=192, **ANY_WORDS, most_wide=most_wide)
    assert int(run.after["score_keys"].n_live[0, 3]) == 2 * entries
    assert run.after["score_keys"].n_wide.tolist() == [is_left]
    is_full = is_left > most_wide
    assert int(run.after["solve"].n_unsolved) == is_left - is_full
    assert run.paths("solve").tolist() == [FULL if is_full else FEW]
    assert run.row("output", "mass")[3] == pytest.approx(1.0, abs=2.0**-17)
