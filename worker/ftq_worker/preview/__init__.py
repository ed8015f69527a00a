"""What a job would train on, seen before it is submitted: the real phases on the first rows."""
