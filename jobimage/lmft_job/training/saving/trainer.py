"""What Trainer writes into a checkpoint, part by part, so that the large ones can be written beside training."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINING_ARGS_NAME

from lmft_job.adapters.attach import has_adapter
from lmft_job.adapters.state import save_about_adapter, save_adapter, state_of
from lmft_job.sharding.divide import trains_divided
from lmft_job.training.loop import TRAINER_FOLDER, TrainingLoop

_THEIRS = ("_save", "save_model", "_save_checkpoint", "_save_optimizer_and_scheduler")


class SavingTrainer(Trainer):
    """Mixed into Trainer or the user's subclass of it: checkpoints go through :class:`CheckpointWriter`.

    A user's class that saves by itself does so while training waits.
    """

    run: TrainingLoop
    stopping = False
    """Whether training is interrupted after the step."""

    @property
    def _saves_by_itself(self) -> bool:
        kind = self.run.job.trainer_class
        return any(getattr(kind, name) is not getattr(Trainer, name) for name in _THEIRS)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        self.run.ready_to_save(step)
        with self.run.writer.collecting():
            super()._save_checkpoint(model, trial)
        folder = self.run.job.folder / TRAINER_FOLDER / f"checkpoint-{step}"
        self.run.saved(folder, step, stopping=self.stopping)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        divided, adapter = trains_divided(self.model), has_adapter(self.model)
        if self._saves_by_itself and not adapter and not divided:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            if divided:
                self.run.job.model.config.save_pretrained(folder)  # weights go into parts, with the optimizer's state
            elif adapter:
                save_about_adapter(self.model, folder)
                self.run.writer.write(state_of(self.model), save_adapter, folder)
            else:
                self._save_whole(folder, state_dict)
            self.run.job.tokenizer.save_pretrained(folder)

    def _save_whole(self, folder: Path, state: dict[str, Any] | None) -> None:
        model = self.run.job.model

        def save(weights: Any, place: Path) -> None:
            model.save_pretrained(place, state_dict=weights)

        self.run.writer.write(model.state_dict() if state is None else state, save, folder)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._saves_by_itself or trains_divided(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            optimizer: Any = self.optimizer
            scheduler: Any = self.lr_scheduler
            self.run.writer.write(optimizer.state_dict(), _save_optimizer, Path(output_dir))
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)


def _save_optimizer(state: Any, folder: Path) -> None:
    torch.save(state, folder / OPTIMIZER_NAME)
