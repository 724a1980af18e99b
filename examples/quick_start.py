"""The quick start of the Qwen3-VL model card, on this package's classes.

    python examples/quick_start.py --image photo.jpg
    python examples/quick_start.py --image photo.jpg --model path/to/a/checkpoint

Changed against the card are the line of the import and where the model and the picture come from.
"""

import argparse

from qwen3vl import AutoProcessor, Qwen3VLForConditionalGeneration

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="Qwen/Qwen3-VL-4B-Instruct", help="a name on the Hugging Face hub, or a folder")
parser.add_argument("--image", required=True, help="a file or an https URL")
parser.add_argument("--max-new-tokens", type=int, default=128)
arguments = parser.parse_args()

# The weights go to the GPU if there is one, in the type in which they are stored.
model = Qwen3VLForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = AutoProcessor.from_pretrained(arguments.model)

messages = [
    {
        "role": "user",
        "content": [
            {"type": "image", "image": arguments.image},
            {"type": "text", "text": "Describe this image."},
        ],
    }
]

# Preparation for inference: token ids, and the picture cut into patches.
inputs = processor.apply_chat_template(
    messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
inputs = inputs.to(model.device)

# Inference: generate gives prompt and answer; the prompt is cut off before decoding.
generated_ids = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens)
generated_ids_trimmed = [
    out_ids[len(in_ids) :] for in_ids, out_ids in zip(inputs.input_ids, generated_ids, strict=True)
]
output_text = processor.batch_decode(
    generated_ids_trimmed, skip_special_tokens=True, clean_up_tokenization_spaces=False
)
print(output_text)
