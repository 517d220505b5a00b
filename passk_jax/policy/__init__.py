"""The decoder of Gemma 2, Llama 3.1 and Qwen 2.5, LoRA, tokenizers, checkpoints, sharding."""
