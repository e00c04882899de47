"""What manifests may name: pure checks of a spec against the platform's rules.

Whoever may create an LMFineTune could otherwise use every Secret, service account and image of the namespace through
the operator, which has more rights than they do. Every refusal names the rule, so that a platform team can find it.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from lmft_api.addresses import admits, decoded
from lmft_api.manifest.validation import Problem
from lmft_api.schema.rules import amount
from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.fields import QUEUE_LABEL
from lmft_api.spec.output import tracker_addresses, tracker_secrets
from lmft_api.spec.pod import EnvVar
from lmft_operator.settings import JobSettings, OperatorSettings, PolicyRules

_RESERVED = ("lmfinetune.dev/*", "batch.kubernetes.io/*", "job-name", "controller-uid")
"""Label keys by which the operator and the Job controller identify their own objects."""
_NAMED_IN_FULL = ("system-*", "node-role.kubernetes.io/*", "")
"""Names that could displace the cluster's own pods: allowed only by their full name, not by a pattern."""
_BUILT_IN_ENV = ("LMFT_*", "KUBEFLOW_TRAINER_*", "DISABLE_KUBEFLOW_INTEGRATION")
_WINS_OVER = {
    "HF_DATASETS_OFFLINE": ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    "HF_HUB_OFFLINE": ("TRANSFORMERS_OFFLINE",),
}
"""Other names of a variable, which the libraries read only where this one is not set."""


def refusals(spec: LMFineTuneSpec, settings: OperatorSettings, namespace: str) -> list[Problem]:
    """Everything in the spec that the rules of its namespace forbid, in the order of the manifest."""
    rules, job = settings.policy.for_namespace(namespace), settings.job
    return [
        *_code(spec, rules),
        *_deadline(spec, rules),
        *_sources(spec, rules, settings.defaults.output_uri, namespace),
        *_trackers(spec, rules),
        *_secrets(spec, rules),
        *_resources(spec, rules, job),
        *_pod(spec, rules, job),
    ]


def _code(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
    if spec.model.trust_remote_code and not rules.trust_remote_code:
        yield _refused("spec.model.trustRemoteCode", "running a repository's own code", "policy.trustRemoteCode")
    training = spec.training
    if training is not None and not rules.user_code:
        if training.callbacks:
            yield _refused("spec.training.callbacks", "user code", "policy.userCode")
        if training.trainer_class:
            yield _refused("spec.training.trainerClass", "user code", "policy.userCode")


def _deadline(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
    deadline = spec.active_deadline_seconds
    if rules.max_deadline_seconds is not None and (deadline or 0) > rules.max_deadline_seconds:
        yield _refused(
            "spec.activeDeadlineSeconds",
            f"{deadline} seconds; at most {rules.max_deadline_seconds}",
            "policy.maxDeadlineSeconds",
        )


def _resources(spec: LMFineTuneSpec, rules: PolicyRules, job: JobSettings) -> Iterator[Problem]:
    resources = spec.resources
    if resources is None:
        return
    nodes, gpus = resources.nodes or 1, resources.gpus_per_node or 0
    if nodes > rules.max_nodes:
        yield _refused("spec.resources.nodes", f"{nodes} nodes; at most {rules.max_nodes}", "policy.maxNodes")
    if rules.max_gpus is not None and nodes * gpus > rules.max_gpus:
        wanted = f"{gpus} GPUs" if nodes == 1 else f"{nodes * gpus} GPUs on {nodes} nodes"
        yield _refused("spec.resources.gpusPerNode", f"{wanted}; at most {rules.max_gpus}", "policy.maxGpus")
    if resources.elastic is not None and QUEUE_LABEL in job.labels:
        words = f"the platform's queue (job.labels, {QUEUE_LABEL}) admits all pods or none; remove it"
        yield Problem("spec.resources.elastic", words)
    for field, given, most, rule in (
        ("cpu", resources.cpu, rules.max_cpu, "policy.maxCpu"),
        ("memory", resources.memory, rules.max_memory, "policy.maxMemory"),
        ("ephemeralStorage", resources.ephemeral_storage, rules.max_ephemeral_storage, "policy.maxEphemeralStorage"),
        ("sharedMemory", resources.shared_memory, rules.max_shared_memory, "policy.maxSharedMemory"),
    ):
        if given is not None and most is not None and amount(given) > amount(most):
            yield _refused(f"spec.resources.{field}", f"{given}; at most {most}", rule)
    name = resources.gpu_resource_name
    if name is not None and name != job.gpu_resource_name and not _allowed(name, rules.gpu_resource_names):
        yield _refused("spec.resources.gpuResourceName", f'resource "{name}"', "policy.gpuResourceNames")


def _sources(spec: LMFineTuneSpec, rules: PolicyRules, shared: str | None, namespace: str) -> Iterator[Problem]:
    named = [("spec.model.name", spec.model.name)]
    if spec.model.tokenizer is not None:
        named.append(("spec.model.tokenizer.name", spec.model.tokenizer.name))
    named.append(("spec.dataset.name", spec.dataset.name))
    named += [(f"spec.dataset.files[{index}]", uri) for index, uri in enumerate(spec.dataset.files or ())]
    output = spec.output
    if output is not None:
        named.append(("spec.output.uri", output.uri))
        if output.push_to_hub is not None:
            repository = output.push_to_hub.repository
            if not _allowed(repository, rules.push_to_hub):
                yield _refused("spec.output.pushToHub.repository", f'"{repository}"', "policy.pushToHub")
    for path, source in named:
        if source is None:
            continue
        if "://" in source:
            yield from _address(path, source, spec, rules, shared, namespace)
        elif not _allowed(source, rules.sources.hub):
            yield _refused(path, f'"{source}"', "policy.sources.hub")


def unreadable(source: str, spec: LMFineTuneSpec, settings: OperatorSettings, namespace: str) -> list[Problem]:
    """Policy problems with starting from an address that the run of ``spec.resumeFrom`` has left in its status."""
    rules, shared = settings.policy.for_namespace(namespace), settings.defaults.output_uri
    return list(_address("spec.resumeFrom.name", source, spec, rules, shared, namespace))


def _address(
    path: str, source: str, spec: LMFineTuneSpec, rules: PolicyRules, shared: str | None, namespace: str
) -> Iterator[Problem]:
    if source.startswith("file://"):
        volumes = (spec.pod_template.volumes if spec.pod_template else None) or ()
        yield from _file(path, source, [volume.mount_path for volume in volumes])
    elif ".." in decoded(source).split("/"):
        yield Problem(path, f'"{source}" is refused: an address must not contain ".."')
    if not _admitted(decoded(source), rules.sources.uris):
        yield _refused(path, f'"{source}"', "policy.sources.uris")
    elif shared and _foreign(path, source, shared.rstrip("/"), namespace, rules.sources.uris):
        words = f'"{source}" is refused: of {shared} only the folder {namespace}/ belongs to this namespace'
        yield Problem(path, f"{words} (policy.sources.uris)")


def _foreign(path: str, source: str, shared: str, namespace: str, patterns: Iterable[str]) -> bool:
    """Whether an address lies in the platform's storage, but outside the namespace's own folder of it.

    The platform's credentials may well reach all of it. A pattern that names a folder there allows it.
    """
    address = _plain(source)
    if path == "spec.output.uri" and address == shared:
        return False  # every run writes below its namespace
    literal = re.split(r"[*?\[]", address)[0]
    could_reach = literal != address and f"{shared}/".startswith(literal)
    if not (address == shared or literal.startswith(f"{shared}/") or could_reach):
        return False
    own = f"{shared}/{namespace}"
    if address == own or literal.startswith(f"{own}/"):
        return False
    return not _admitted(address, [pattern for pattern in patterns if pattern.startswith(f"{shared}/")])


def _plain(source: str) -> str:
    """The address in its normal form: some S3 servers keep objects in a file tree, where spellings are equivalent."""
    scheme, _, rest = decoded(source).partition("://")
    return f"{scheme}://{re.sub(r'/(?:[.]?/)+', '/', rest)}".rstrip("/")


def _file(path: str, uri: str, mounts: Iterable[str]) -> Iterator[Problem]:
    """A file:// address must lie on a volume of the manifest: anything else is the image, or other people's secrets."""
    location = decoded(uri).removeprefix("file://")
    inside = location.startswith("/") and ".." not in location.split("/")
    normal = posixpath.normpath(location)
    if not inside or not any(normal == mount or normal.startswith(mount.rstrip("/") + "/") for mount in mounts):
        yield Problem(
            path,
            f'"{uri}" is refused: file:// must lie on a volume that spec.podTemplate.volumes mounts, without ".."',
        )


def _trackers(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
    for path, address in tracker_addresses(spec.report_to):
        if not _tracker_allowed(address, rules.trackers):
            yield _refused(path, f'tracker "{address}"', "policy.trackers")


def _tracker_allowed(address: str, patterns: Iterable[str]) -> bool:
    """An address with and without its final slash is the same; a pattern may be written either way."""
    plain = address.rstrip("/")
    return _allowed(plain, patterns) or _allowed(f"{plain}/", patterns)


def _secrets(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
    references = [
        ("spec.model.credentialsSecretRef.name", spec.model.credentials_secret_ref),
        ("spec.dataset.credentialsSecretRef.name", spec.dataset.credentials_secret_ref),
        ("spec.output.credentialsSecretRef.name", spec.output.credentials_secret_ref if spec.output else None),
        ("spec.hubTokenSecretRef.name", spec.hub_token_secret_ref),
        *(
            (f"spec.reportTo.{name}.credentialsSecretRef.name", reference)
            for name, reference in tracker_secrets(spec.report_to)
        ),
    ]
    names = [(path, reference.name) for path, reference in references if reference is not None]
    pull = (spec.pod_template.image_pull_secrets if spec.pod_template else None) or ()
    names += [(f"spec.podTemplate.imagePullSecrets[{index}].name", secret.name) for index, secret in enumerate(pull)]
    for path, name in names:
        if not _allowed(name, rules.secrets):
            yield _refused(path, f'Secret "{name}"', "policy.secrets")


def _pod(spec: LMFineTuneSpec, rules: PolicyRules, job: JobSettings) -> Iterator[Problem]:
    pod = spec.pod_template
    if pod is None:
        return
    at = "spec.podTemplate"
    if pod.image is not None and pod.image != job.image and not _allowed(pod.image, rules.images):
        yield _refused(f"{at}.image", f'image "{pod.image}"', "policy.images")
    account = pod.service_account_name
    if account is not None and not _allowed(account, rules.service_accounts):
        yield _refused(f"{at}.serviceAccountName", f'service account "{account}"', "policy.serviceAccounts")
    for index, volume in enumerate(pod.volumes or ()):
        if not _allowed(volume.claim_name, rules.volumes):
            yield _refused(f"{at}.volumes[{index}].claimName", f'claim "{volume.claim_name}"', "policy.volumes")
    for index, variable in enumerate(pod.env or ()):
        if _allowed(variable.name, _BUILT_IN_ENV) or not _allowed(variable.name, rules.env_names):
            yield _refused(f"{at}.env[{index}].name", f'variable "{variable.name}"', "policy.envNames")
        elif (name := _set_by_platform(variable, job.env)) is not None:
            # The value is not shown: a proxy's may hold a password.
            words = f"the platform sets {name} for every run (job.env); remove it"
            yield Problem(f"{at}.env[{index}].name", f'variable "{variable.name}" is refused: {words}')
    for field, keys, patterns, rule in (
        ("labels", pod.labels, rules.label_keys, "policy.labelKeys"),
        ("annotations", pod.annotations, rules.annotation_keys, "policy.annotationKeys"),
    ):
        for key in keys or {}:
            if _allowed(key, _RESERVED) or not _allowed(key, patterns):
                yield _refused(f"{at}.{field}", f'key "{key}"', rule)
    for field, given, fixed in (
        ("labels", pod.labels, job.labels),
        ("annotations", pod.annotations, job.annotations),
        ("nodeSelector", pod.node_selector, job.node_selector),
    ):
        for key, value in (given or {}).items():
            if fixed.get(key, value) != value:
                yield Problem(f"{at}.{field}", f'key "{key}" is the platform\'s: it is "{fixed[key]}" for every run')
    for index, toleration in enumerate(pod.tolerations or ()):
        key = toleration.key or ""
        if not _allowed_in_full(key, rules.toleration_keys):
            yield _refused(
                f"{at}.tolerations[{index}].key", f'taint "{key}"' if key else "every taint", "policy.tolerationKeys"
            )
    for field, name, patterns, rule in (
        ("priorityClassName", pod.priority_class_name, rules.priority_classes, "policy.priorityClasses"),
        ("runtimeClassName", pod.runtime_class_name, rules.runtime_classes, "policy.runtimeClasses"),
    ):
        if name is not None and not _allowed_in_full(name, patterns):
            yield _refused(f"{at}.{field}", f'"{name}"', rule)


def _set_by_platform(variable: EnvVar, fixed: Mapping[str, str]) -> str | None:
    """The platform's variable that this one would change; None if it changes none."""
    names = (variable.name, *_WINS_OVER.get(variable.name, ()))
    return next((name for name in names if fixed.get(name, variable.value) != variable.value), None)


def _admitted(address: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern allows a decoded address and everything that its wildcards stand for."""
    return any(admits(pattern, address, wildcards=True) for pattern in patterns)


def _allowed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _allowed_in_full(name: str, patterns: Iterable[str]) -> bool:
    return name in patterns if _allowed(name, _NAMED_IN_FULL) else _allowed(name, patterns)


def _refused(path: str, what: str, rule: str) -> Problem:
    return Problem(path, f"{what} is not allowed here ({rule}); choose another, or ask the platform team")
