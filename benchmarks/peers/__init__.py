"""sailctl beside its peers, each in an environment of its own: same task, same machine, same run."""
