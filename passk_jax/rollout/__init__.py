"""Completions of prompts, sampled as groups that share the prompt's cache."""
