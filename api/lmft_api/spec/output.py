"""``spec.sample``, ``spec.output`` and ``spec.reportTo``: what to show, and where result and metrics go."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from lmft_api.schema.patterns import REPOSITORY_PATTERN, WANDB_ENTITY_PATTERN, WANDB_PROJECT_PATTERN
from lmft_api.schema.rules import Rule, decimal_rule, total
from lmft_api.schema.types import ApiModel, Decimal, StorageUri, TrackerUri
from lmft_api.spec.conversations import Turn, TurnRole
from lmft_api.spec.pod import SecretRef
from lmft_api.spec.training import Weights


class SampleConversation(ApiModel):
    """A conversation that the model continues with its answer."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=32)]
    """The turns so far; the last one is the user's."""

    rules: ClassVar = (
        Rule(
            f"size(self.messages) == 0 || self.messages[size(self.messages) - 1].role == '{TurnRole.USER}'",
            "must end with a turn of the user, which the model answers",
            lambda c: not c.messages or c.messages[-1].role == TurnRole.USER,
            "messages",
        ),
    )


class Sample(ApiModel):
    """Prompts answered by the model before and after training."""

    prompts: (
        Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=4096)]], Field(max_length=16)] | None
    ) = None
    """CausalLM continues them (with conversations: answers them), MaskedLM fills <mask>, SequenceClassification labels
    them."""
    conversations: Annotated[list[SampleConversation], Field(max_length=16)] | None = None
    """Conversations that the model answers; needs dataset.messagesField or promptField."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Tokens to generate. Default: 100."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Sample among the k most likely tokens; for MaskedLM the number of fills. Default: 50 (MaskedLM: 3)."""
    top_p: Decimal | None = None
    """Sample within this much probability mass, quoted. Default: "0.95"."""

    rules: ClassVar = (
        decimal_rule("topP", "top_p", 0.0, 1.0, above=True),
        total(
            "has(self.prompts) ? self.prompts.map(prompt, size(prompt)).sum() : 0",
            lambda s: [len(prompt) for prompt in s.prompts or ()],
            8000,
            "prompts",
            "shorten them, or ask fewer",
        ),
        total(
            "has(self.conversations) "
            "? self.conversations.map(c, c.messages.map(m, size(m.content) + 40).sum()).sum() : 0",
            lambda s: [len(turn.content) + 40 for c in s.conversations or () for turn in c.messages],
            24_000,
            "conversations",
            "each message counts 40 more; shorten them, or ask fewer",
        ),
    )


class PushToHub(ApiModel):
    """Upload the model to the hub when the run is done."""

    repository: Annotated[str, StringConstraints(pattern=REPOSITORY_PATTERN, max_length=200)]
    """owner/name; created if it does not exist."""
    private: bool = True
    """Visibility of a repository created by the run."""


class Output(ApiModel):
    """Where checkpoints, model and report go."""

    uri: StorageUri | None = None
    """s3://bucket/prefix, or file:///folder. Default: what the platform team configured."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where needed, AWS_ENDPOINT_URL and AWS_REGION."""
    weights: Weights | None = None
    """Last, or the Best by evaluation loss. Default: Last."""
    push_to_hub: PushToHub | None = None
    """Upload the model to the hub too."""
    merge: bool | None = None
    """Merge a trained adapter into the model's weights and publish both; false publishes only it. Default: true."""


class Mlflow(ApiModel):
    """An MLflow tracking server."""

    uri: TrackerUri
    """Its tracking URI, such as https://mlflow.example.com; policy.trackers must allow it."""
    experiment: Annotated[str, StringConstraints(min_length=1, max_length=250)] | None = None
    """Experiment, created if it does not exist. Default: the namespace of the run."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with MLFLOW_TRACKING_TOKEN, or with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Default: no
    credentials; on a laptop variables of these names."""


class Wandb(ApiModel):
    """A server of Weights & Biases."""

    project: Annotated[str, StringConstraints(pattern=WANDB_PROJECT_PATTERN, max_length=128)] | None = None
    """Project, created if it does not exist. Default: the namespace of the run."""
    entity: Annotated[str, StringConstraints(pattern=WANDB_ENTITY_PATTERN, max_length=128)] | None = None
    """User or team that the project belongs to. Default: that of the key."""
    url: TrackerUri | None = None
    """Address of its API, of a server of your own for instance; policy.trackers must allow it. Default:
    https://api.wandb.ai."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with WANDB_API_KEY. Default: no key; on a laptop the variable of this name."""


class ReportTo(ApiModel):
    """Trackers; each gets one run for the resource, over all its attempts."""

    tensor_board: bool | None = None
    """Event files for TensorBoard in the run's folder, below tensorboard/."""
    mlflow: Mlflow | None = None
    """An MLflow tracking server."""
    wandb: Wandb | None = None
    """Weights & Biases."""


WANDB_URL = "https://api.wandb.ai"
"""Where Weights & Biases is reached that runs name no address of."""


def tracker_addresses(wanted: ReportTo | None) -> list[tuple[str, str]]:
    """Fields of the spec, and the address of the tracker that each names or leaves to the default."""
    found = []
    if wanted is not None and wanted.mlflow is not None:
        found.append(("spec.reportTo.mlflow.uri", wanted.mlflow.uri))
    if wanted is not None and wanted.wandb is not None:
        found.append(("spec.reportTo.wandb.url", wanted.wandb.url or WANDB_URL))
    return found


def tracker_secrets(wanted: ReportTo | None) -> list[tuple[str, SecretRef]]:
    """Names of the trackers, as fields of ``spec.reportTo``, and the Secrets with their keys."""
    if wanted is None:
        return []
    named = (("mlflow", wanted.mlflow), ("wandb", wanted.wandb))
    return [
        (name, tracker.credentials_secret_ref) for name, tracker in named if tracker and tracker.credentials_secret_ref
    ]
