"""A model whose weights are divided among processes (FSDP2): divided, stored in parts, put together again."""
