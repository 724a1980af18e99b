"""The network, in plain PyTorch. It knows neither the processor nor the engine; qwen3vl.py is the way in."""
