"""Draws balanced verification pairs from labels, people disjoint between folds. Used by `pairs`."""

import numpy as np

from marginface.errors import InputError

LFW_PER_FOLD = 300


def draw_pairs(
    labels: np.ndarray, folds: int, per_fold: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, same) of `2 * folds * per_fold` pairs: in each fold the same pairs come first."""
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(labels))
    if folds < 2 or len(people) < 2 * folds:
        raise InputError(f"{folds} folds of disjoint people need at least {2 * folds} people; there are {len(people)}")
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], people)
    ends = np.searchsorted(labels[order], people, side="right")
    images = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    dealt = [images[fold::folds] for fold in range(folds)]
    most = min(min(_same_available(fold), _different_available(fold)) for fold in dealt)
    wanted = min(most, LFW_PER_FOLD) if per_fold is None else per_fold
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
    rounds = [own[deck[turn]] for turn in range(wanted) for own, deck in _still(decks, turn)][:wanted]
    return np.array(rounds)


def _still(decks: list[tuple[np.ndarray, np.ndarray]], turn: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [deck for deck in decks if turn < len(deck[1])]


def _unrank(numbers: np.ndarray) -> np.ndarray:
    """Pair (i, j), i < j, of each number in the order (0,1), (0,2), (1,2), (0,3), ...; int64 (n, 2)."""
    upper = ((1 + np.sqrt(1 + 8 * numbers)) // 2).astype(np.int64)
    return np.stack([numbers - upper * (upper - 1) // 2, upper], axis=1)


def _different(images: list[np.ndarray], wanted: int, rng: np.random.Generator) -> np.ndarray:
    """(wanted, 2): two people at random, an image of each at random."""
    if _different_available(images) < 4 * wanted:  # few to choose from: list them all
        every = [(a, b) for i, own in enumerate(images) for other in images[:i] for a in own for b in other]
        return np.array(every)[rng.choice(len(every), wanted, replace=False)]
    drawn: dict[tuple[int, int], None] = {}
    # people first, then images: the rarely pictured count as much; where they run out of pairs, images decide
    tries = 0
    while len(drawn) < wanted:
        tries += 1
        a, b = _two_people(images, rng, uniform=tries < 20 * wanted)
        x, y = int(rng.choice(images[a])), int(rng.choice(images[b]))
        drawn[min(x, y), max(x, y)] = None
    return np.array(list(drawn))


def _two_people(images: list[np.ndarray], rng: np.random.Generator, uniform: bool) -> tuple[int, int]:
    sizes = np.array([1 if uniform else len(own) for own in images])
    a, b = rng.choice(len(images), 2, replace=False, p=sizes / sizes.sum())
    return int(a), int(b)
