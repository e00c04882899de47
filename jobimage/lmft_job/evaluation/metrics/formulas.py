"""The figures of held-out data from sums over batches. A run computes them here; ``evaluate`` modules wrap them."""

import math
from collections.abc import Sequence


def mean_loss(losses: Sequence[float], counts: Sequence[int]) -> float:
    """Mean negative log-likelihood over all target tokens, each weighing the same, in nats.

    Args:
        losses: for each batch, the negative log-likelihoods of its target tokens, summed, in nats.
        counts: for each batch, its number of target tokens.

    Raises:
        ValueError: there are no targets.
    """
    tokens = sum(counts)
    if tokens == 0:
        raise ValueError("no target tokens: perplexity is not defined")
    # fsum is exact, so the figure depends on how tokens were batched only through each batch's own sum.
    return math.fsum(losses) / tokens


def perplexity(loss: float) -> float:
    """exp(loss) (Jelinek et al., "Perplexity - a measure of the difficulty of speech recognition tasks", 1977).

    Infinite where that overflows.
    """
    return math.exp(loss) if loss < 700 else math.inf


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> float:
    """Share of the predicted classes that are the true ones, 0 to 1."""
    right = sum(int(guess == truth) for guess, truth in zip(predictions, references, strict=True))
    return right / len(references)
