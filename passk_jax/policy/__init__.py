"""The decoder of Gemma, Llama, Qwen and SmolLM2, LoRA, tokenizers, checkpoints, sharding."""
