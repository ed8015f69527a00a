"""One machine for itself: the embedded broker and who looks after it."""
