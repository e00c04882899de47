"""Names that other tools use for fields and values of a manifest, for hints about unknown names."""

import difflib
from collections.abc import Iterable

from lmft_api.tasks import TASKS

_FIELDS: dict[str, tuple[str, ...]] = {
    # transformers' TrainingArguments and its example scripts; peft, TRL, Axolotl and others that follow them
    "model.name": ("model_name_or_path", "model_name", "base_model", "pretrained_model_name_or_path", "model_id"),
    "model.revision": ("model_revision",),
    "model.tokenizer.name": ("tokenizer_name", "tokenizer_name_or_path", "tokenizer_config"),
    "model.fromConfig": ("model_type", "base_model_config", "config_overrides"),
    "model.tokenizer.trainVocabSize": ("vocab_size",),
    "dataset.name": ("dataset_name", "data_name", "dataset_id"),
    "dataset.config": ("dataset_config_name", "dataset_config", "subset"),
    "dataset.files": ("train_file", "train_files", "data_files", "data_path", "path", "file"),
    "dataset.evalSplit": (
        "validation_file", "validation_split", "test_split",
        "eval_dataset", "valid_split", "test_datasets",
    ),
    "dataset.testPercent": ("test_size", "validation_split_percentage", "val_set_size", "eval_size", "holdout"),
    "dataset.textField": ("text_column", "text_column_name", "dataset_text_field", "column", "text_key"),
    "dataset.labelField": ("label_column", "label_column_name", "target", "label_key"),
    "dataset.blockSize": ("max_length", "max_seq_length", "max_seq_len", "sequence_len", "context_length"),
    "dataset.messagesField": (
        "messages_column", "conversations", "conversation_field",
        "chat_field", "messages", "field_messages",
    ),
    "dataset.promptField": ("prompt_column", "instruction", "instruction_field", "question_field"),
    "dataset.completionField": ("completion_column", "response", "response_field", "answer_field", "output_field"),
    "dataset.trainOn": (
        "assistant_only_loss", "completion_only_loss", "train_on_inputs", "train_on_responses_only", "roles_to_train",
        "train_on_eos",
    ),
    "dataset.longRows": ("excess_length_strategy", "truncation_mode"),
    "dataset.packing": ("sample_packing", "multipack"),
    "dataset.isolateDocuments": (
        "reset_attention_mask", "reset_position_ids", "document_mask", "intra_document_masking", "padding_free",
    ),
    "dataset.maskProbability": ("mlm_probability", "mask_prob", "masking_probability"),
    "training.epochs": ("num_train_epochs", "num_epochs", "n_epochs", "max_epochs", "epoch"),
    "training.maxSteps": ("max_train_steps", "num_steps", "iterations", "max_iters"),
    "training.learningRate": ("lr", "learn_rate", "peak_lr"),
    "training.weightDecay": ("wd", "adamw_weight_decay"),
    "training.perDeviceBatchSize": (
        "per_device_train_batch_size", "per_device_eval_batch_size", "batch_size", "train_batch_size",
        "micro_batch_size", "bs", "per_gpu_train_batch_size", "eval_batch_size",
    ),
    "training.gradientAccumulationSteps": ("accumulation_steps", "grad_accum", "accumulate_grad_batches"),
    "training.batchSize": ("global_batch_size", "total_batch_size", "effective_batch_size", "gbs"),
    "training.parallelism": ("ddp", "fsdp", "fsdp_config", "distributed", "strategy", "distributed_type", "deepspeed"),
    "training.warmupPercent": ("warmup_ratio", "warmup_steps", "num_warmup_steps", "warmup"),
    "training.scheduler": ("lr_scheduler_type", "lr_scheduler", "scheduler_type", "lr_decay_style"),
    "training.optimizer": ("optim", "optimiser", "optimizer_name"),
    "training.precision": (
        "bf16", "fp16", "mixed_precision", "dtype", "torch_dtype",
        "tf32", "half", "bf16_full_eval", "fp16_full_eval",
    ),
    "training.compile": ("torch_compile", "torch_compile_mode", "torch_compile_backend"),
    "training.gradientCheckpointing": (
        "activation_checkpointing", "use_gradient_checkpointing", "gradient_checkpointing_kwargs",
        "activation_checkpointing_kwargs",
    ),
    "training.adapter": ("peft", "peft_config", "lora", "use_peft", "lora_config"),
    "training.adapter.type": ("use_dora", "peft_use_dora", "peft_type"),
    "training.adapter.rank": ("lora_r", "r", "lora_rank"),
    "training.adapter.alpha": ("lora_alpha",),
    "training.adapter.dropout": ("lora_dropout",),
    "training.adapter.targetModules": ("lora_target_modules", "lora_target_linear"),
    "training.adapter.rankStabilized": ("use_rslora", "peft_use_rslora"),
    "training.quantization": ("load_in_4bit", "load_in_8bit", "qlora", "quantization_config", "bnb_4bit_quant_type"),
    "training.maxGradNorm": ("gradient_clipping", "grad_clip", "clip_grad_norm", "max_norm", "gradient_clip_val"),
    "training.earlyStoppingPatience": ("early_stopping", "patience"),
    "training.seed": ("random_seed", "data_seed", "random_state"),
    "evaluation.everySteps": (
        "eval_steps", "eval_strategy", "evaluation_strategy", "eval_every", "val_check_interval",
        "evals_per_epoch",
    ),
    "checkpoint.everySteps": ("save_steps", "save_strategy", "checkpoint_steps", "save_every", "saves_per_epoch"),
    "checkpoint.keep": ("save_total_limit", "keep_last_n", "max_to_keep"),
    "sample.maxNewTokens": ("max_tokens", "max_new_token", "num_tokens", "eval_max_new_tokens"),
    "sample.prompts": ("prompt", "inputs", "eval_prompts"),
    "output.uri": ("output_dir", "output_path", "save_dir", "logging_dir", "bucket", "checkpoint_dir"),
    "output.weights": ("load_best_model_at_end", "save_best", "metric_for_best_model"),
    "output.pushToHub.repository": ("hub_model_id", "push_to_hub_model_id", "repo_id"),
    "output.pushToHub.private": ("hub_private_repo",),
    "reportTo": ("report_to", "trackers"),
    "reportTo.tensorBoard": ("use_tensorboard", "tensorboard"),
    "reportTo.mlflow.uri": ("mlflow_tracking_uri", "tracking_uri"),
    "reportTo.mlflow.experiment": ("mlflow_experiment_name",),
    "reportTo.wandb.project": ("wandb_project", "WANDB_PROJECT"),
    "reportTo.wandb.entity": ("wandb_entity", "WANDB_ENTITY"),
    "reportTo.wandb.url": ("wandb_base_url", "WANDB_BASE_URL", "base_url"),
    "hubTokenSecretRef": ("hub_token", "hf_token", "token", "use_auth_token"),
    "resumeFrom.name": ("resume_from_checkpoint", "resume", "lora_model_dir", "ignore_data_skip"),
    # Kubernetes' pods, Jobs and other operators of training
    "resources.gpusPerNode": (
        "gpus", "gpu", "num_gpus", "n_gpu", "nproc_per_node", "nvidia.com/gpu", "accelerators", "use_cpu",
    ),
    "resources.memory": ("mem", "ram", "limits", "requests"),
    "resources.cpu": ("cpus", "num_cpus"),
    "resources.sharedMemory": ("shm_size", "shm"),
    "resources.nodes": ("num_nodes", "nnodes", "replicas", "workers", "num_machines"),
    "resources.elastic.minNodes": ("min_nodes", "min_replicas", "elastic_policy"),
    "podTemplate.nodeSelector": ("node_selectors", "affinity"),
    "podTemplate.volumes.claimName": ("host_path", "persistent_volume_claim", "pvc", "empty_dir"),
    "podTemplate.volumes.mountPath": ("volume_mounts", "mount"),
    "podTemplate.env": ("environment", "env_vars", "env_from"),
    "podTemplate.serviceAccountName": ("service_account",),
    "podTemplate.image": ("container_image", "containers"),
    "ttlSecondsAfterFinished": ("ttl", "cleanup"),
    "activeDeadlineSeconds": ("timeout", "deadline", "max_run_time"),
    "maxRetries": ("backoff_limit", "retries", "max_restarts"),
}  # fmt: skip
_ABSENT: dict[str, tuple[str, ...]] = {
    "every step is logged, to metrics.jsonl in the run's folder": (
        "logging_steps", "logging_strategy", "logging_first_step", "log_level", "log_level_replica", "disable_tqdm",
        "logging_nan_inf_filter", "log_on_each_node",
    ),
    "a tracker's run is named by the run itself, and gets its metrics (spec.reportTo)": (
        "wandb_watch", "wandb_name", "wandb_log_model", "wandb_run_id", "hf_mlflow_log_artifacts",
    ),
    "it is not among the trackers of spec.reportTo; metrics.jsonl in the run's folder has every step": (
        "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "use_comet", "comet_project_name",
    ),
    "a run is named by metadata.name": ("run_name", "experiment_name", "job_name"),
    "devices are set in spec.resources, and how they share the work is chosen by itself": (
        "deepspeed", "fsdp", "fsdp_config", "accelerator_config", "parallelism_config", "local_rank", "ddp_backend",
        "ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph",
        "average_tokens_across_devices",
    ),
    "the optimizer keeps the defaults of torch": ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args"),
    "a batch that does not fit is halved by itself": ("auto_find_batch_size",),
    "kernels are chosen by themselves": (
        "use_liger_kernel", "liger_kernel", "liger_kernel_config", "attn_implementation", "flash_attention",
        "xformers_attention", "sdp_attention",
    ),
    "it has no counterpart here": (
        "hub_revision", "hub_strategy", "hub_always_push", "enable_jit_checkpoint", "eval_accumulation_steps",
        "relora_steps", "do_train", "do_eval", "do_predict", "lr_scheduler_kwargs", "push_dataset_to_hub",
        "eval_on_start", "eval_delay", "remove_unused_columns", "group_by_length", "neftune_noise_alpha",
        "label_smoothing_factor", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_drop_last",
        "pad_to_sequence_len", "modules_to_save", "special_tokens",
    ),
}  # fmt: skip
_VALUES: dict[str, tuple[str, ...]] = {
    "AdamW": (
        "adam", "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit",
        "paged_adamw_8bit", "adamw_apex_fused", "fused_adam",
    ),
    "SGD": ("momentum",),
    "Constant": ("constant_with_warmup", "none"),
    "Cosine": ("cosine_with_restarts", "cosine_with_min_lr", "cosine_annealing"),
    "Linear": ("linear_with_warmup", "polynomial"),
    "BF16": ("bfloat16", "torch.bfloat16", "bf16-mixed", "bf16-true"),
    "FP16": ("float16", "torch.float16", "half", "16", "16-mixed", "f16"),
    "FP32": ("float32", "torch.float32", "float", "full", "32", "32-true", "f32", "no", "tf32"),
    "json": ("jsonl", "ndjson", "jsonlines", "json-lines"),
    "text": ("txt", "plain", "md", "markdown"),
    "csv": ("tsv", "excel"),
    "parquet": ("pq", "arrow"),
    "Last": ("final", "latest", "end"),
    "Best": ("lowest", "load_best_model_at_end"),
}  # fmt: skip


def plain(name: str) -> str:
    """A name without capitals, underscores, hyphens and spaces, in which spellings differ."""
    return "".join(letter for letter in name.lower() if letter not in "_- ")


_BY_FIELD = {plain(other): ours for ours, others in _FIELDS.items() for other in others}
_NOT_HERE = {plain(other): why for why, others in _ABSENT.items() for other in others}
_BY_VALUE = {plain(other): ours for ours, others in _VALUES.items() for other in others} | {
    plain(other): task.value for task, defaults in TASKS.items() for other in defaults.aliases
}


def why_absent(name: str) -> str | None:
    """Why another tool's field has no counterpart; None where it may have one."""
    return _NOT_HERE.get(plain(name))


def for_field(name: str, siblings: Iterable[str], parent: str, everywhere: Iterable[str]) -> str | None:
    """The field that an unknown name may mean: a sibling by its name, else another field by its path.

    Args:
        name: the unknown name.
        siblings: fields that are allowed in its place.
        parent: path of the siblings' parent, such as ``training``; empty for the spec itself.
        everywhere: paths of all fields below ``spec``.
    """
    beside = {plain(sibling): sibling for sibling in siblings}
    if plain(name) in beside:
        return beside[plain(name)]
    paths = list(everywhere)
    elsewhere = [path for path in paths if plain(path.rpartition(".")[2]) == plain(name)]
    found = _BY_FIELD.get(plain(name))
    if found not in paths:
        found = elsewhere[0] if len(elsewhere) == 1 else None
    near = difflib.get_close_matches(plain(name), beside, 1, 0.6)
    if found is not None and not (near and difflib.SequenceMatcher(None, plain(name), near[0]).ratio() > 0.85):
        prefix = f"{parent}." if parent else ""
        return found.removeprefix(prefix) if prefix and found.startswith(prefix) else f"spec.{found}"
    return beside[near[0]] if near else None


def for_value(value: str, choices: Iterable[str]) -> str | None:
    """The choice that an unknown value may mean."""
    known = {plain(choice): choice for choice in choices}
    if plain(value) in known:
        return known[plain(value)]
    alias = _BY_VALUE.get(plain(value))
    if alias in known.values():
        return alias
    near = difflib.get_close_matches(plain(value), known, 1, 0.5)
    return known[near[0]] if near else None
