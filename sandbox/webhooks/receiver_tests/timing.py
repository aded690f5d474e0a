"""Find out from refusal times whether a receiver compares signatures character by character. Pure.

Such a receiver takes longer to refuse a signature whose beginning is right, so an attacker could guess one character after the
other. Times over a network vary for many reasons, so the finding is only advice, and needs strong evidence in two independent
rounds of samples.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

FIRST_PAIRS: Final = 12
"""Pairs of samples in the first round."""
_SECOND_PAIRS: Final = 40
_SECOND_SECONDS: Final = 2.0
MAX_SECONDS: Final = 0.05
"""If the first refusal takes longer than this, no samples are taken: they would take too long and vary too much."""
_MIN_DIFFERENCE: Final = 0.0005
_MIN_SHARE: Final = 0.9


def second_pairs(nearly_right: Sequence[float]) -> int:
    """Return how many pairs of samples the second round has, which runs only if the first one is suspicious.

    They are fewer if one takes so long that many would take more than a few seconds.
    """
    return max(FIRST_PAIRS, min(_SECOND_PAIRS, int(_SECOND_SECONDS / median(nearly_right))))


def reveals_progress(wrong: Sequence[float], nearly_right: Sequence[float]) -> bool:
    """Return whether nearly right signatures took clearly longer to refuse than wrong ones. Both are times in seconds.

    The medians must differ by more than half a millisecond and by more than three times the usual deviation, and nine of ten
    pairs of samples must agree. One slow sample changes neither.
    """
    difference = median(nearly_right) - median(wrong)
    deviation = max(_deviation(wrong), _deviation(nearly_right))
    pairs = [(fast, slow) for fast in wrong for slow in nearly_right]
    share = sum(slow > fast for fast, slow in pairs) / len(pairs)
    return difference > max(_MIN_DIFFERENCE, 3 * deviation) and share >= _MIN_SHARE


def advice(wrong: Sequence[float], nearly_right: Sequence[float]) -> str:
    """Return the observation as a sentence."""
    return (
        f"It took {median(nearly_right) * 1000:.1f} ms to refuse a signature that was right except at its end, and "
        f"{median(wrong) * 1000:.1f} ms to refuse one that was wrong everywhere. So an attacker can find the "
        "right one character by character."
    )


def _deviation(samples: Sequence[float]) -> float:
    """Return the median of the distances from the median."""
    middle = median(samples)
    return median([abs(sample - middle) for sample in samples])
