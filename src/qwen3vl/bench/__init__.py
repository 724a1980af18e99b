"""How fast a model is on this machine, and how much of the machine that is: `qwen3vl bench`."""
