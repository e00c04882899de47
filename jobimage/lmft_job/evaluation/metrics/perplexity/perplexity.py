"""Token-weighted perplexity as an ``evaluate`` module."""

import math
from collections.abc import Sequence

import datasets
import evaluate

_DESCRIPTION = """
Perplexity of a language model on held-out text: exp of the mean negative log-likelihood over all target tokens, each
weighing the same (Jelinek et al., "Perplexity - a measure of the difficulty of speech recognition tasks", 1977).
"""

_INPUTS = """
Args:
    losses (list of float): for each batch, the negative log-likelihoods of its target tokens, summed, in nats.
    counts (list of int): for each batch, its number of target tokens.
Returns:
    loss: mean negative log-likelihood in nats.
    perplexity: exp(loss); infinite where that overflows.
"""


class Perplexity(evaluate.Metric):  # type: ignore[misc]
    """See the module's docstring."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"losses": datasets.Value("float64"), "counts": datasets.Value("int64")}),
        )

    def _compute(self, losses: Sequence[float], counts: Sequence[int]) -> dict[str, float]:
        tokens = sum(counts)
        if tokens == 0:
            raise ValueError("no target tokens: perplexity is not defined")
        # fsum is exact, so the figure depends on how tokens were batched only through each batch's own sum.
        loss = math.fsum(losses) / tokens
        return {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf}
