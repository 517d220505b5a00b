"""What a compiled program computes, reads and sends on a TPU, without the TPU."""
