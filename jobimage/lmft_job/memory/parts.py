"""What a device's memory holds at the busiest moment of a step, by what it is for; plain arithmetic."""

from dataclasses import dataclass, fields, replace
from fractions import Fraction

GIB = 1 << 30


@dataclass(frozen=True)
class Parts:
    """Bytes in use at one moment.

    Attributes:
        weights: the model's own weights and buffers.
        adapter: weights of the adapter.
        gradients: gradients that have been computed by then.
        optimiser: state of the optimiser.
        activations: what the backward pass needs, the batch, and temporary results.
        logits: scores of every token of the vocabulary, in each precision, and their gradient.
        overhead: what the device's driver and allocator take beside them.
    """

    weights: int = 0
    adapter: int = 0
    gradients: int = 0
    optimiser: int = 0
    activations: int = 0
    logits: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.by_name().values())

    def divided(self, ranks: int, layers: int) -> "Parts":
        """What a rank holds where weights are divided among ranks (FSDP), by torch's own description of it.

        Beside its share: two layers whole, the one in use and the next one on its way, and the gradients of one. With
        an adapter the frozen weights are divided, and what is trained is not.

        Args:
            ranks: that divide the weights.
            layers: of the model, taken as equally large.
        """
        gathered = self.weights // ranks + 2 * self.weights // max(1, layers)
        weights = min(self.weights, gathered)
        if self.adapter:
            return replace(self, weights=weights)
        gradients = min(self.gradients, self.gradients // ranks + self.gradients // max(1, layers))
        return replace(self, weights=weights, gradients=gradients, optimiser=self.optimiser // ranks)

    def by_name(self) -> dict[str, int]:
        """Bytes by the name of the part."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(frozen=True)
class Moments:
    """The busiest moment of each stretch of a step; which of them is the peak depends on the number of layers.

    Attributes:
        forward: the forward pass and the backward pass down to the middle of the model: activations are at their most.
        backward: the rest of the backward pass, and the optimiser's step: gradients are at their most.
        evaluation: a forward pass over held-out rows, without gradients.
    """

    forward: Parts
    backward: Parts
    evaluation: Parts

    @property
    def peak(self) -> Parts:
        """The busiest of them."""
        return max((self.forward, self.backward, self.evaluation), key=lambda parts: parts.total)


def extended(few: Moments, more: Moments, layers: tuple[int, int, int]) -> Moments:
    """The moments of a model with as many layers as wanted, from those of two smaller ones of the same kind.

    Every layer holds the same, so within each stretch every part grows by the same amount with each layer.

    Args:
        few: of the smallest.
        more: of the next.
        layers: of the smallest, of the next, and wanted.
    """
    first, second, wanted = layers

    def line(low: Parts, high: Parts) -> Parts:
        pairs = ((name, value, high.by_name()[name]) for name, value in low.by_name().items())
        return Parts(**{name: max(0, a + (b - a) * (wanted - first) // (second - first)) for name, a, b in pairs})

    return Moments(
        line(few.forward, more.forward), line(few.backward, more.backward), line(few.evaluation, more.evaluation)
    )


def mixed(corners: tuple[Moments, Moments, Moments], steps: tuple[Fraction, Fraction]) -> Moments:
    """The moments of a model that checkpoints some of its layers, from those of three smaller ones.

    Args:
        corners: of a few checkpointed layers followed by a few others; of more that are checkpointed; of more others.
        steps: how many times what the second has more than the first is added, and what the third has.
    """

    def plane(*three: Parts) -> Parts:
        first, second, third = (parts.by_name() for parts in three)
        grown = {name: first[name] + steps[0] * (second[name] - first[name]) for name in first}
        return Parts(**{name: max(0, int(grown[name] + steps[1] * (third[name] - first[name]))) for name in first})

    return Moments(
        plane(*(corner.forward for corner in corners)),
        plane(*(corner.backward for corner in corners)),
        plane(*(corner.evaluation for corner in corners)),
    )
