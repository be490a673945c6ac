"""Draws balanced verification pairs from labels, people disjoint between folds. Used by `pairs`."""

import itertools

import numpy as np

from marginface.errors import InputError

LFW_PER_FOLD = 300


def draw_pairs(
    labels: np.ndarray, folds: int, per_fold: int | None, seed: int, most_each: int = LFW_PER_FOLD
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, same) of `2 * folds * per_fold` pairs: in each fold the same pairs come first.

    per_fold: None takes as many as there are, at most `most_each`.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(labels))
    if folds < 1 or len(people) < 2 * folds:
        raise InputError(f"{folds} folds of disjoint people need at least {2 * folds} people; there are {len(people)}")
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], people)
    ends = np.searchsorted(labels[order], people, side="right")
    images = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    dealt = [images[fold::folds] for fold in range(folds)]
    most = min(min(_same_available(fold), _different_available(fold)) for fold in dealt)
    wanted = min(most, most_each) if per_fold is None else per_fold
    if not 1 <= wanted <= most:
        raise InputError(
            f"{len(labels)} images of {len(people)} people yield at most {most} same and different pairs "
            f"in each of {folds} folds, not {wanted}; use fewer folds or pairs"
        )
    halves = [half for fold in dealt for half in (_same(fold, wanted, rng), _different(fold, wanted, rng))]
    drawn = np.concatenate(halves)
    return drawn[:, 0], drawn[:, 1], np.tile(np.repeat([True, False], wanted), folds)


def _same_available(images: list[np.ndarray]) -> int:
    return sum(len(own) * (len(own) - 1) // 2 for own in images)


def _different_available(images: list[np.ndarray]) -> int:
    total = sum(len(own) for own in images)
    return (total * total - sum(len(own) ** 2 for own in images)) // 2


def _same(images: list[np.ndarray], wanted: int, rng: np.random.Generator) -> np.ndarray:
    """(wanted, 2): rounds over the people, one pair each, so that people with many images do not rule."""
    decks = []
    for own in images:
        if pairs := len(own) * (len(own) - 1) // 2:
            decks.append((own, rng.permutation(_unrank(rng.choice(pairs, min(pairs, wanted), replace=False)))))
    rounds = (own[deck[turn]] for turn in range(wanted) for own, deck in decks if turn < len(deck))
    return np.array(list(itertools.islice(rounds, wanted)))


def _unrank(numbers: np.ndarray) -> np.ndarray:
    """Pair (i, j), i < j, of each number in the order (0,1), (0,2), (1,2), (0,3), ...; int64 (n, 2)."""
    upper = ((1 + np.sqrt(1 + 8 * numbers)) // 2).astype(np.int64)
    return np.stack([numbers - upper * (upper - 1) // 2, upper], axis=1)


def _different(images: list[np.ndarray], wanted: int, rng: np.random.Generator) -> np.ndarray:
    """(wanted, 2): two people at random, an image of each at random."""
    if _different_available(images) < 4 * wanted:  # few to choose from: list them all
        every = [(a, b) for i, own in enumerate(images) for other in images[:i] for a in own for b in other]
        return np.array(every)[rng.choice(len(every), wanted, replace=False)]
    sizes, everyone = np.array([len(own) for own in images]), np.concatenate(images)
    starts, owner = np.cumsum(sizes) - sizes, np.repeat(np.arange(len(images)), sizes)
    drawn: dict[tuple[int, int], None] = {}
    # people first, then images, so that the rarely pictured count as much; where they run out of pairs, images decide
    for turn in itertools.count():
        sides = rng.integers(len(images) if turn < 20 else len(everyone), size=(2, wanted))
        if turn < 20:
            sides = starts[sides] + (rng.random((2, wanted)) * sizes[sides]).astype(np.int64)
        sides = np.sort(everyone[sides[:, owner[sides[0]] != owner[sides[1]]]], axis=0)
        drawn |= dict.fromkeys(zip(*sides.tolist(), strict=True))
        if len(drawn) >= wanted:
            break
    return np.array(list(itertools.islice(drawn, wanted)))
