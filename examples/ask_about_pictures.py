"""Ask about a picture, see what the model saw, and ask on.

    python examples/ask_about_pictures.py photo.jpg
    python examples/ask_about_pictures.py photo.jpg --model path/to/a/checkpoint

No model at hand? `qwen3vl random-checkpoint --edition 2b --shrink --out noise` writes a tiny one that runs
anywhere; its weights are random, so its answers are noise.
"""

import argparse

import qwen3vl
from qwen3vl import ImagePart, Message, SamplingParams, TextPart

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", help="a file or an https URL")
parser.add_argument("--model", default="Qwen/Qwen3-VL-4B-Instruct", help="a name on the Hugging Face hub, or a folder")
parser.add_argument("--max-tokens", type=int, default=200)
arguments = parser.parse_args()

model = qwen3vl.load(arguments.model)

# 1. One question, one answer. Without other settings the most likely token is taken each time.
reply = model.chat("What is in this picture?", images=[arguments.image], max_tokens=arguments.max_tokens)
print(reply.text)

# 2. Every answer carries a receipt for each picture: what the model really saw.
for receipt in reply.receipts:
    print(f"{receipt.source}: {receipt.original_size} resized to {receipt.resized_size}, {receipt.num_tokens} tokens")
print(f"{reply.usage.prompt_tokens} tokens read in {reply.timings.first_token:.1f} s")

# 3. A conversation is a list of messages. The answer goes on it, and then the next question.
messages = [
    Message("user", (ImagePart(arguments.image), TextPart("What is in this picture?"))),
    reply.as_message(),
    Message("user", (TextPart("Name its main colours."),)),
]

# 4. `stream` gives the answer piece by piece; the last piece carries the whole of it. The settings here are
#    those that the model card recommends for pictures, with a seed so that the answer can be had again.
params = SamplingParams.preset("vl", max_tokens=arguments.max_tokens, seed=1)
for delta in model.stream(messages, params):
    print(delta.text, end="", flush=True)
    if delta.completion is not None:
        usage = delta.completion.usage
        # The picture and the first turn are still in memory: only what is new has been read.
        print(f"\n{usage.cached_tokens} of {usage.prompt_tokens} tokens were known already")
