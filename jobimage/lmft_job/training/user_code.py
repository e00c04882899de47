"""The user's own classes: imported only if whoever starts the run allows it."""

import importlib
from typing import Any

from lmft_api.spec.resolved import Settings
from lmft_api.wire.run_file import RunFile
from lmft_job.errors import InvalidError


def refuse_forbidden_code(run: RunFile, settings: Settings) -> None:
    """Refuse code that the manifest asks for and that is not allowed.

    Raises:
        InvalidError: lists every field that asks for it.
    """
    training = settings.training
    problems = []
    if not run.allow_user_code:
        asked = [f"spec.training.callbacks[{index}]" for index in range(len(training.callbacks))]
        asked += ["spec.training.trainerClass"] if training.trainer_class else []
        problems += [
            f"{field}: runs your own code, which is not allowed here; ask the platform team to allow it (on a laptop: "
            "--allow-user-code)"
            for field in asked
        ]
    if settings.model.trust_remote_code and not run.allow_remote_code:
        problems.append(
            "spec.model.trustRemoteCode: runs code from the model's repository, which is not allowed here; ask the "
            "platform team to allow it (on a laptop: --allow-remote-code)"
        )
    if problems:
        raise InvalidError(problems)


def load_user_code(settings: Settings) -> tuple[type[Any], list[Any]]:
    """The trainer class and the callbacks of the manifest; Trainer and an empty list by default.

    Raises:
        InvalidError: a path that cannot be imported, or names something other than a Trainer or TrainerCallback.
    """
    from transformers import Trainer, TrainerCallback

    problems: list[str] = []
    chosen: type[Any] = Trainer
    if settings.training.trainer_class:
        found = _import(settings.training.trainer_class, Trainer, "spec.training.trainerClass", problems)
        chosen = found or Trainer
    classes = [
        _import(path, TrainerCallback, f"spec.training.callbacks[{index}]", problems)
        for index, path in enumerate(settings.training.callbacks)
    ]
    if problems:
        raise InvalidError(problems)
    callbacks = []
    for path, kind in zip(settings.training.callbacks, classes, strict=True):
        try:
            callbacks.append(kind())  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            problems.append(f"spec.training.callbacks: {path} cannot be made without arguments ({error})")
    if problems:
        raise InvalidError(problems)
    return chosen, callbacks


def _import(path: str, base: type[Any], field: str, problems: list[str]) -> type[Any] | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - importing runs the user's code
        problems.append(f"{field}: {path} cannot be imported ({type(error).__name__}: {error}); is it in the image?")
        return None
    if not (isinstance(found, type) and issubclass(found, base)):
        problems.append(f"{field}: {path} is not a {base.__name__} class")
        return None
    return found
