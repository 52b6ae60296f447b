"""The prompt format as a chat template, by which other programs put a response between our special tokens."""

# The message is the response with its words reversed. Jinja could reverse it, but what the model answers is reversed too and no
# program would turn that round: one rule for both directions is easier to keep.
CHAT_TEMPLATE = (
    "{%- if messages | length != 1 or messages[0]['role'] != 'user' -%}"
    "{{- raise_exception('give one user message: the response, with its words reversed') -}}"
    "{%- endif -%}"
    "{{- '<|endoftext|><|im_start|><|response|>' + messages[0]['content'] + '<|im_end|><|im_start|><|instruction|>' -}}"
)
