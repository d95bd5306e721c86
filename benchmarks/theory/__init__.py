"""The theory lab: commands that check theorems of three papers on problems small enough to enumerate."""
