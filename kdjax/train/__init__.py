"""Training: state, step, loop, devices, sweeps, checkpoints. Receives methods, builds none."""
