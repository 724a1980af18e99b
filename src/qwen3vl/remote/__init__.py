"""A model behind an OpenAI-compatible server: `model = qwen3vl.connect("http://127.0.0.1:8000/v1", "...")`.

    messages --encode: pictures, videos--> JSON --transport: HTTP, retries, SSE--> JSON --decode--> Completion, Delta

dialects.py says what each kind of server understands; what it does not is refused before anything is sent.
"""

from qwen3vl.remote.client import RemoteModel, connect

__all__ = ["RemoteModel", "connect"]
