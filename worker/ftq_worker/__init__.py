"""The host's side of ftq: the processes of a worker, the dispatcher, the phases, the training."""
