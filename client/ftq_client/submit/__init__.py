"""From flags, file and answers to a checked spec: what `ftq submit` does before it sends."""
