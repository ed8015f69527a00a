"""What `ftq demo` and the tests train on: a base model and a dirty dataset, both made here."""
