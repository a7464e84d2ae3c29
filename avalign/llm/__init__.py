"""Language models: any Hugging Face causal LM, frozen, with LoRA or in full; a small Llama from scratch."""

from avalign.llm.base import LanguageModel
from avalign.llm.chat import AUDIO, IMAGE, Chat
from avalign.llm.huggingface import HuggingFaceLlm
from avalign.llm.small import SmallLlama, digit_tokenizer

__all__ = ["AUDIO", "IMAGE", "Chat", "HuggingFaceLlm", "LanguageModel", "SmallLlama", "digit_tokenizer"]
