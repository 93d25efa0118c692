"""Citations: keys, histories, and entries that BibTeX could read."""

import pytest

import learnmech as lm
from learnmech.citation import WORKS
from learnmech.errors import InputError
from learnmech.monitor.instrument import INSTRUMENTS, make_instrument


def test_learnmech_comes_first_and_nothing_twice():
    text = lm.cite(["shi2024", "shi2024"])
    assert text.count("@article{shi2024spring") == 1
    assert text.startswith("@software{learnmech")


@pytest.mark.parametrize("entry", WORKS.values())
def test_entries_are_balanced(entry):
    assert entry.startswith("@")
    assert entry.count("{") == entry.count("}")
    assert "author" in entry
    assert "title" in entry


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_what_instruments_cite_is_known(name):
    lm.cite(make_instrument(name).citations)


def test_unknown_work():
    with pytest.raises(InputError, match="unknown works nobody2000; known are learnmech"):
        lm.cite("nobody2000")


def test_a_history_with_works_of_the_users_own_can_still_be_cited():
    meaning = {"long_name": "loss", "units": "nat", "source": "test"}
    run = lm.history.build(
        {"loss": (("step",), [1.0], meaning)}, {"step": [0]}, attributes={"citations": ["me2026", "shi2024"]}
    )
    assert "@article{shi2024spring" in lm.cite(run)
