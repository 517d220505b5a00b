"""Log-probabilities, objective, loss, optimizer, schedules, update and checkpoints."""
