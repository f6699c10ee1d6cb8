"""Votes to spare: all counts of a few votes against every way to change some of them."""

from itertools import combinations, combinations_with_replacement, pairwise, product

import numpy as np
import pytest

from certus.smoothing.derandomized.votes import votes_to_spare


def tallies(votes, classes):
    """All counts of that many votes."""
    for split in combinations(range(votes + classes - 1), classes - 1):
        edges = (-1, *split, votes + classes - 1)
        yield tuple(b - a - 1 for a, b in pairwise(edges))


def survives(counts, changed):
    """Whether the winner wins whichever `changed` votes go to whatever classes."""
    winner, classes = int(np.argmax(counts)), range(len(counts))
    for out in combinations_with_replacement(classes, changed):
        left = np.array(counts) - np.bincount(out, minlength=len(counts))
        if (left < 0).any():
            continue
        for into in combinations_with_replacement(classes, changed):
            if int(np.argmax(left + np.bincount(into, minlength=len(counts)))) != winner:
                return False
    return True


@pytest.mark.parametrize(("votes", "classes"), [(1, 2), (6, 2), (7, 2), (5, 3), (6, 3), (4, 4)])
def test_the_number_is_exact(votes, classes):
    every = list(tallies(votes, classes))
    spare = votes_to_spare(np.array(every))
    for counts, found in zip(every, spare, strict=True):
        assert all(survives(counts, k) for k in range(found + 1))
        assert found + 1 > votes or not survives(counts, found + 1)
    assert len(set(spare.tolist())) > 1 or votes == 1


def test_ties_go_to_the_smaller_index():
    """4 to 2: after one change it is 3 to 3, which class 0 wins and class 1 does not."""
    assert votes_to_spare(np.array([[4, 2], [2, 4], [3, 3], [2, 5]])).tolist() == [1, 0, 0, 1]
    assert votes_to_spare(np.array([[0, 0, 7], [7, 0, 0]])).tolist() == [3, 3]
    assert votes_to_spare(np.array([[0, 6], [6, 0]])).tolist() == [2, 3]


def test_rivals_are_all_looked_at():
    for counts in product(range(5), repeat=3):
        if len(set(counts)) == 3:
            two = votes_to_spare(np.array([counts]))[0]
            winner = int(np.argmax(counts))
            alone = [
                votes_to_spare(np.array([[counts[a] for a in sorted((winner, c))]]))[0]
                for c in range(3)
                if c != winner
            ]
            assert two == min(alone)
