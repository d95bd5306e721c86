"""Named generators: one seed, streams that do not know of each other."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from sailctl.core.seeding import STREAMS, generator, named_generators, seed_of_32_bits


def test_the_same_seed_draws_the_same():
    one, two = named_generators(3), named_generators(3)
    for name in STREAMS:
        np.testing.assert_array_equal(getattr(one, name).random(50), getattr(two, name).random(50))


def test_other_seeds_and_other_names_draw_otherwise():
    draws = {
        (seed, name): tuple(getattr(named_generators(seed), name).integers(2**63, size=4))
        for seed in range(5)
        for name in STREAMS
    }
    assert len(set(draws.values())) == len(draws)


def test_streams_are_uncorrelated():
    n = 20_000
    draws = {name: getattr(named_generators(0), name).standard_normal(n) for name in STREAMS}
    for one, two in itertools.combinations(STREAMS, 2):
        correlation = np.corrcoef(draws[one], draws[two])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(n), (one, two)


@pytest.mark.parametrize("name", STREAMS)
def test_drawing_from_one_stream_leaves_the_others_alone(name: str):
    used, fresh = named_generators(1), named_generators(1)
    getattr(used, name).standard_normal(1000)
    for other in set(STREAMS) - {name}:
        np.testing.assert_array_equal(getattr(used, other).random(20), getattr(fresh, other).random(20))


def test_a_stream_depends_on_its_own_name_only(monkeypatch: pytest.MonkeyPatch):
    """A stream added before the others does not change what they draw."""
    before = named_generators(7)
    longer = dataclasses.make_dataclass("Longer", [(name, object) for name in ("aaa", *STREAMS)])
    monkeypatch.setattr("sailctl.core.seeding.STREAMS", ("aaa", *STREAMS))
    monkeypatch.setattr("sailctl.core.seeding.Generators", longer)
    after = named_generators(7)
    assert hasattr(after, "aaa")
    for name in STREAMS:
        np.testing.assert_array_equal(getattr(before, name).random(20), getattr(after, name).random(20))


def test_the_evaluation_stream_is_none_of_the_training_streams():
    drawn = generator(0, "eval").random(4)
    assert not any(np.array_equal(drawn, getattr(named_generators(0), name).random(4)) for name in STREAMS)


def test_pinned_first_draws():
    """Runs of earlier versions stay reproducible: these numbers were drawn once and must not move."""
    assert named_generators(0).sim.integers(1000, size=4).tolist() == [382, 898, 344, 201]
    assert named_generators(0).oracle.integers(1000, size=4).tolist() == [250, 284, 447, 197]


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        named_generators(-1)


def test_a_narrow_seed_is_the_seed_itself_where_it_fits():
    assert [seed_of_32_bits(seed) for seed in (0, 7, 2**32 - 1)] == [0, 7, 2**32 - 1]
    wide = [seed_of_32_bits(seed) for seed in range(2**32, 2**32 + 50)]
    assert len(set(wide)) == 50
    assert all(0 <= seed < 2**32 for seed in wide)
    assert wide[:3] != [0, 1, 2]
