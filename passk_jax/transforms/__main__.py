"""Prints the table of estimators: `python -m passk_jax.transforms`."""

from passk_jax.transforms.table import describe

NOTES = """
unbiased for: the expected update is exactly the gradient of this (max@k: the mean best of k
rewards); -: biased, help(passk_jax.transforms.<name>) gives the function that it follows.
PKPO: arXiv 2505.15201. AS: 2510.23049. PKT: 2508.10751. TZSM: 2503.19595. PKR: Mahdavi et al. 2025,
Beyond Accuracy."""

if __name__ == "__main__":
    print(describe())
    print(NOTES)
