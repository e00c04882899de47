"""What manifests may name: pure checks of a spec against the platform's rules.

Who may create an LMFineTune could otherwise use every Secret, service account and image of the namespace through the
operator, which has more rights than they do. Every refusal names the rule, so that a platform team can find it.
"""

import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from urllib.parse import unquote

from lmft_api.spec import LMFineTuneSpec
from lmft_api.validation import Problem
from lmft_operator.settings import JobSettings, PolicyRules

_OURS = ("lmfinetune.dev/",)
_BUILT_IN_ENV = ("LMFT_*", "KUBEFLOW_TRAINER_*", "DISABLE_KUBEFLOW_INTEGRATION")


def refusals(spec: LMFineTuneSpec, rules: PolicyRules, job: JobSettings) -> list[Problem]:
    """Everything in the spec that the rules of its namespace forbid, in the order of the manifest."""
    return [*_code(spec, rules), *_sources(spec, rules), *_secrets(spec, rules), *_pod(spec, rules, job)]


def _code(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
    if spec.model.trust_remote_code and not rules.trust_remote_code:
        yield _refused("spec.model.trustRemoteCode", "running a repository's own code", "policy.trustRemoteCode")
    training = spec.training
    if training is not None and not rules.user_code:
        if training.callbacks:
            yield _refused("spec.training.callbacks", "user code", "policy.userCode")
        if training.trainer_class:
            yield _refused("spec.training.trainerClass", "user code", "policy.userCode")
    resources = spec.resources
    if rules.max_gpus is not None and resources is not None and (resources.gpus_per_node or 0) > rules.max_gpus:
        yield _refused(
            "spec.resources.gpusPerNode", f"{resources.gpus_per_node} GPUs; at most {rules.max_gpus}", "policy.maxGpus"
        )
    deadline = spec.active_deadline_seconds
    if rules.max_deadline_seconds is not None and (deadline or 0) > rules.max_deadline_seconds:
        yield _refused(
            "spec.activeDeadlineSeconds",
            f"{deadline} seconds; at most {rules.max_deadline_seconds}",
            "policy.maxDeadlineSeconds",
        )


def _sources(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
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
    mounts = [volume.mount_path for volume in (spec.pod_template.volumes if spec.pod_template else None) or ()]
    for path, source in named:
        if source is None:
            continue
        if "://" not in source:
            if not _allowed(source, rules.sources.hub):
                yield _refused(path, f'"{source}"', "policy.sources.hub")
            continue
        if source.startswith("file://"):
            yield from _file(path, source, mounts)
        elif ".." in unquote(source).split("/"):
            yield Problem(path, f'"{source}" is refused: an address must not contain ".."')
        if not _allowed(source, rules.sources.uris):
            yield _refused(path, f'"{source}"', "policy.sources.uris")


def _file(path: str, uri: str, mounts: Iterable[str]) -> Iterator[Problem]:
    """A file:// address must stay on a volume of the manifest: all else is the image, or other people's secrets."""
    location = unquote(uri.removeprefix("file://"))
    inside = location.startswith("/") and ".." not in location.split("/")
    normal = posixpath.normpath(location)
    if not inside or not any(normal == mount or normal.startswith(mount.rstrip("/") + "/") for mount in mounts):
        yield Problem(
            path,
            f'"{uri}" is refused: file:// must lie on a volume that spec.podTemplate.volumes mounts, without ".."',
        )


def _secrets(spec: LMFineTuneSpec, rules: PolicyRules) -> Iterator[Problem]:
    references = [
        ("spec.model.credentialsSecretRef.name", spec.model.credentials_secret_ref),
        ("spec.dataset.credentialsSecretRef.name", spec.dataset.credentials_secret_ref),
        ("spec.output.credentialsSecretRef.name", spec.output.credentials_secret_ref if spec.output else None),
        ("spec.hubTokenSecretRef.name", spec.hub_token_secret_ref),
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
    for field, keys, patterns, rule in (
        ("labels", pod.labels, rules.label_keys, "policy.labelKeys"),
        ("annotations", pod.annotations, rules.annotation_keys, "policy.annotationKeys"),
    ):
        for key in keys or {}:
            if key.startswith(_OURS) or not _allowed(key, patterns):
                yield _refused(f"{at}.{field}", f'key "{key}"', rule)
    for field, name, patterns, rule in (
        ("priorityClassName", pod.priority_class_name, rules.priority_classes, "policy.priorityClasses"),
        ("runtimeClassName", pod.runtime_class_name, rules.runtime_classes, "policy.runtimeClasses"),
    ):
        if name is not None and not (name in patterns if name.startswith("system-") else _allowed(name, patterns)):
            yield _refused(f"{at}.{field}", f'"{name}"', rule)


def _allowed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refused(path: str, what: str, rule: str) -> Problem:
    return Problem(path, f"{what} is not allowed here ({rule}); choose another, or ask the platform team")
