"""Trials of one model: what its steps take in memory, and how much they compute.

Layers are alike, so a large model is tried with a few of them, and with one more.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Any

from lmft_api.spec import Precision
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.tasks import Task
from lmft_job.adapters.attach import trained
from lmft_job.memory.parts import Moments, extended, mixed
from lmft_job.memory.plan import Plan
from lmft_job.memory.trial.hollow import Rules
from lmft_job.memory.trial.models import built, multiplying, shortened, sizes_alike
from lmft_job.memory.trial.step import step
from lmft_job.models.config import text_part
from lmft_job.training.acceleration.activation_checkpointing import checkpointable


class Trials:
    """Trials of one model: plans share its few layers, and what torch says of operations on them.

    Args:
        config: of the model, complete: with vocabulary and labels.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self._rules = Rules()
        self._sizes: dict[Task, tuple[int, int] | None] = {}
        self._models: dict[Any, Any] = {}
        self._corners: dict[Plan, Any] = {}
        layers = getattr(text_part(config), "num_hidden_layers", None)
        self._layers = layers if isinstance(layers, int) else 0

    def moments(self, plan: Plan) -> Moments:
        """The busiest moments of a step and an evaluation.

        Args:
            plan: what the device does.

        Raises:
            Exception: anything that the model's code raises on fake tensors, as where shapes depend on values.
        """
        count = self.checkpointable(plan)
        if 0 < plan.checkpointing.layers < count:
            return self._mixed(plan, count)
        models = self._models_of(plan)
        if (sizes := self._sizes_of(plan)) is None:
            return step(models[0], self._rules, plan, len(trained(models[0])) // 2)
        beginning = len(trained(models[1])) - len(trained(models[0]))
        few, more = (step(model, self._rules, plan, beginning) for model in models)
        return extended(few, more, (*sizes, self._layers))

    def checkpointable(self, plan: Plan) -> int:
        """Layers of the whole model of which any number may be checkpointed; 0 if it does not admit it."""
        counts = [checkpointable(model) for model in self._models_of(plan)]
        sizes = self._sizes_of(plan)
        if sizes is None:
            return counts[0]
        return self._layers if counts == list(sizes) else 0

    def _mixed(self, plan: Plan, count: int) -> Moments:
        """Of a plan that checkpoints some layers: all numbers of them are computed from the same three trials."""
        sizes = self._sizes_of(plan)
        layers = plan.checkpointing.layers
        few, more = sizes or (0, 0)
        each = more - few
        if sizes is None or more + each >= count:
            model = self._model(plan, None)
            return step(model, self._rules, plan, len(trained(model)) // 2)
        key = replace(plan, checkpointing=replace(plan.checkpointing, layers=each))
        if key not in self._corners:
            # checkpointed layers, and others
            amounts = ((each, few), (2 * each, few), (each, more))
            self._corners[key] = tuple(self._corner(key, *amount, each) for amount in amounts)
        return mixed(self._corners[key], (Fraction(layers - each, each), Fraction(count - layers - few, each)))

    def _corner(self, plan: Plan, checkpointed: int, others: int, each: int) -> Moments:
        model, smaller = (self._model(plan, checkpointed + others - less) for less in (0, each))
        wanted = replace(plan, checkpointing=replace(plan.checkpointing, layers=checkpointed))
        return step(model, self._rules, wanted, len(trained(model)) - len(trained(smaller)))

    def flops_per_token(self, plan: Plan) -> float:
        """Floating-point operations for a token of training: 6 for each weight that multiplies, 4 for a frozen one,
        plus attention's 12 x layers x width x length (PaLM, appendix B); a third more where activations are computed
        again.
        """
        part, plan = text_part(self.config), replace(plan, quantized=False)
        weights, *more = (multiplying(model) for model in self._models_of(plan))
        layers, width = (getattr(part, name, 0) or 0 for name in ("num_hidden_layers", "hidden_size"))
        if (sizes := self._sizes_of(plan)) is not None:
            weights += (more[0] - weights) * (layers - sizes[0]) // (sizes[1] - sizes[0])
        each = 4.0 if plan.adapter is not None else 6.0
        again = min(1.0, plan.checkpointing.layers / max(1, layers))
        flops: float = (each * weights + 2 * each * layers * width * plan.length) * (1 + again / 3)
        return flops

    def _sizes_of(self, plan: Plan) -> tuple[int, int] | None:
        """Numbers of layers to try; None if all of them are to be."""
        if plan.task not in self._sizes:
            self._sizes[plan.task] = sizes_alike(self.config, plan.task)
        return None if _is_of_one_layer(plan.adapter) else self._sizes[plan.task]

    def _models_of(self, plan: Plan) -> list[Any]:
        """The model with the smaller number of layers and with the larger, or whole."""
        return [self._model(plan, size) for size in self._sizes_of(plan) or (None,)]

    def _model(self, plan: Plan, layers: int | None) -> Any:
        """The model with as many layers; whole without a number."""
        narrow = plan.precision if plan.on_gpu and plan.adapter is not None else Precision.FP32
        kind = plan.task, plan.adapter, plan.quantized, narrow, layers
        if kind not in self._models:
            self._models[kind] = built(self.config if layers is None else shortened(self.config, layers), plan)
        return self._models[kind]


def _is_of_one_layer(adapter: AdapterSettings | None) -> bool:
    """Whether an adapter's modules are named with the number of their layer, which a smaller model may lack."""
    return adapter is not None and any(part.isdecimal() for name in adapter.target_modules for part in name.split("."))
