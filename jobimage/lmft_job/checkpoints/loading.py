"""Whether a checkpoint's folder on this disk can be loaded; weights are read as safetensors; nothing is unpickled.

A manifest proves that the files are those that were written. Anyone who may write to the storage can write one too.
"""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lmft_api.wire.layout import BEST_FOLDER
from lmft_job.adapters.attach import has_adapter, trained
from lmft_job.adapters.state import UnfitAdapterError, require_fitting
from lmft_job.models.weights import misfits
from lmft_job.sharding.divide import is_divided, plain_class, share_of_model
from lmft_job.sharding.files import FOLDER, UnfitShardsError, has_shards, needed, require_weights
from lmft_job.sharding.optimizer import GROUPS, require_state
from lmft_job.storage import DamagedFolderError
from lmft_job.training.history import TrainingHistory

_UNREAD = ("pytorch_model*", "adapter_model.bin", "adapter_config.json", "optimizer.bin", "training_args.bin")
"""Files that transformers would unpickle, or follow to another model, if they lie in a checkpoint. None is needed."""
_STATES = ("optimizer.pt", GROUPS, "scheduler.pt", "scaler.pt", "rng_state*.pth")


def require_loadable(folder: Path, model: Any, *, own_trainer: bool) -> None:
    """Checks everything that a resumed training reads, and removes what it must not read.

    Args:
        folder: a checkpoint, fetched and verified.
        model: the model to resume; unchanged.
        own_trainer: whether the user's trainer class is used; its optimizer state may have any content.

    Raises:
        DamagedFolderError: some of it does not load; the message says which file and why.
    """
    for place in (folder, folder / BEST_FOLDER):
        _remove_unread(place)
    _require_history(folder)
    if has_shards(folder) and (lacking := [name for name in (GROUPS, "scheduler.pt") if not (folder / name).is_file()]):
        raise DamagedFolderError(f"{lacking[0]} is missing")
    for pattern in _STATES:
        for path in sorted(folder.glob(pattern)):
            state = _read_state(path)
            if path.name == "optimizer.pt" and not own_trainer:
                _require_optimizer(state, model)
            if path.name == GROUPS and not own_trainer:
                _require_parts(state, model, folder)
    for place in (folder, folder / BEST_FOLDER):
        if place.is_dir():
            _require_weights(place, model)


def needed_files(names: Iterable[str], model: Any) -> set[str]:
    """Of the files of a checkpoint, those that this process reads: all but parts of weights that others hold."""
    found, lengths = set(names), [weight.shape[0] for weight in trained(model) if weight.dim()]
    for folder in (FOLDER, f"{BEST_FOLDER}/{FOLDER}"):
        parts = {name.removeprefix(f"{folder}/") for name in found if name.startswith(f"{folder}/")}
        found -= {f"{folder}/{name}" for name in parts - needed(parts, lengths, share_of_model(model))}
    return found


def _require_weights(folder: Path, model: Any) -> None:
    """All trained weights, with the right shapes, as :func:`lmft_job.adapters.state.restore` will read them."""
    if has_shards(folder):
        try:
            require_weights(model, folder)
        except UnfitShardsError as error:
            raise DamagedFolderError(f"the weights in {folder.name}/ are not this model's ({error})") from error
        return
    if has_adapter(model):
        try:
            require_fitting(model, folder)
        except UnfitAdapterError as error:
            raise DamagedFolderError(f"the weights in {folder.name}/ are not this model's ({error})") from error
        return
    _require_plain_names(folder)
    if is_divided(model) and (odd := _misfits(model, folder)) is not None:
        if odd:
            raise DamagedFolderError(f"the weights in {folder.name}/ are not this model's ({odd[0]})")
        return
    try:
        _, about = plain_class(model).from_pretrained(
            folder,
            config=model.config,
            dtype=model.dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # libraries raise anything for files that others may have written
        raise DamagedFolderError(f"the weights in {folder.name}/ do not load ({_first_line(error)})") from error
    lacking = sorted(about["missing_keys"]) or sorted(str(entry) for entry in about["mismatched_keys"])
    if lacking:
        raise DamagedFolderError(f"the weights in {folder.name}/ are not this model's ({lacking[0]})")


def _misfits(model: Any, folder: Path) -> list[str] | None:
    """See :func:`misfits`: no process loads all of what is divided, to check it."""
    try:
        return misfits(model, folder)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFolderError(f"the weights in {folder.name}/ do not load ({_first_line(error)})") from error


def _require_plain_names(folder: Path) -> None:
    """An index of sharded weights may only name files in its own folder."""
    for index in folder.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFolderError(f"{index.name} does not load ({_first_line(error)})") from error
        outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if outside:
            raise DamagedFolderError(f"the weights in {folder.name}/ do not load ({index.name} names {outside[0]!r})")


def _remove_unread(folder: Path) -> None:
    for pattern in _UNREAD:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _require_history(folder: Path) -> None:
    """The training history and Trainer's state."""
    try:
        state = TrainingHistory.load(folder)
        for measured in state.evaluations:
            measured.evaluation()
        sums = (state.tokens, state.seconds, state.saving_seconds)
        position = json.loads((folder / "trainer_state.json").read_text())
        numbers = (int(position["global_step"]), float(position["epoch"]))
        sound = all(isinstance(number, int | float) and math.isfinite(number) for number in (*sums, *numbers))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DamagedFolderError(f"its history does not load ({_first_line(error)})") from error
    if not sound or len(state.losses) < numbers[0]:
        raise DamagedFolderError(f"its history does not load ({len(state.losses)} losses of {numbers[0]} steps)")


def _read_state(path: Path) -> dict[str, Any]:
    """Optimizer, scheduler and random state, as Trainer reads them: tensors and plain values, no objects."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with safe_globals():  # type: ignore[no-untyped-call]
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # libraries raise anything for files that others may have written
        raise DamagedFolderError(f"{path.name} does not load ({_first_line(error)})") from error
    if not isinstance(state, dict):
        raise DamagedFolderError(f"{path.name} does not load (it holds no state)")
    return state


def _require_parts(state: dict[str, Any], model: Any, folder: Path) -> None:
    try:
        require_state(state, model, folder)
    except UnfitShardsError as error:
        raise DamagedFolderError(f"the optimizer's state is not of this model ({error})") from error


def _require_optimizer(state: dict[str, Any], model: Any) -> None:
    learned = trained(model)
    try:
        count = sum(len(group["params"]) for group in state["param_groups"])
        momenta = [entry["exp_avg"] for entry in state["state"].values() if "exp_avg" in entry]
        shapes = sorted(tuple(momentum.shape) for momentum in momenta)
    except (LookupError, TypeError, AttributeError) as error:
        raise DamagedFolderError(f"optimizer.pt does not load ({_first_line(error)})") from error
    if count != len(learned) or not set(shapes) <= {tuple(parameter.shape) for parameter in learned}:
        raise DamagedFolderError("optimizer.pt is not of this model")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
