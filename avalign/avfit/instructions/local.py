"""A causal LM of the Hugging Face hub or a folder, asked on this machine by its own chat template."""

from __future__ import annotations

import hashlib
from typing import Any

from avalign.errors import AvalignError


class LocalModel:
    """Writes phrasings with a local model, in the form that its chat template gives a question.

    model:          hub id or folder
    temperature:    of the sampling; 0 takes the likeliest word
    max_new_tokens: at which a reply is cut off
    """

    def __init__(self, model: str, *, temperature: float = 0.8, max_new_tokens: int = 2048) -> None:
        self.model, self.temperature, self.max_new_tokens = model, temperature, max_new_tokens
        self.variant = f"local {temperature} {max_new_tokens}"
        self._loaded: Any = None

    def ask(self, prompt: str, number: int) -> str:
        """The reply's text; the same for the same prompt and number."""
        import torch

        llm = self._loaded = self._loaded or _load(self.model)
        text = llm.chat.render(prompt)
        asked = llm.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids.to(llm.lm.device)
        sampling = {"temperature": self.temperature, "top_p": 0.95} if self.temperature > 0 else {}
        seed = int.from_bytes(
            hashlib.blake2b(f"{number} {prompt}".encode(), digest_size=7).digest(), "little"
        )
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            ids = llm.lm.generate(
                asked,
                attention_mask=torch.ones_like(asked),
                do_sample=bool(sampling),
                max_new_tokens=self.max_new_tokens,
                pad_token_id=llm.pad_id,
                eos_token_id=llm.end_ids,
                **sampling,
            )
        return str(llm.tokenizer.decode(ids[0, asked.shape[1] :], skip_special_tokens=True))


def _load(model: str) -> Any:
    import torch

    from avalign.llm import LanguageModel
    from avalign.llm.huggingface import released
    from avalign.llm.tokenizer_files import first_line, tokenizer_of

    try:
        lm = released(model)
        tokenizer = tokenizer_of(model)
    except AvalignError as error:
        raise AvalignError(str(error).replace("model.llm.model", "--local")) from error
    except Exception as error:  # the library raises that very class for a tokenizer.json cut short
        raise AvalignError(f"--local: {model!r} has no tokenizer: {first_line(error)}") from error
    lm.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return LanguageModel(lm, tokenizer)
