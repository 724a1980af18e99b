"""Running the model: prompts into the cache, tokens out of it, settings and stopping in between."""
