"""The theory lab: theorems of the three papers as commands, on problems small enough to enumerate."""
