"""``make real``: a pretrained chat model, fine-tuned with LoRA on questions and answers, loaded by pipeline()."""
