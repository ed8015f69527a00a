"""The process of one phase, and the zygote that forks it."""
