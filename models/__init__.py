"""Models as programs: language models, with tokens and constraints; linear-Gaussian state spaces."""

from .catalogue import load_pretrained as _load_pretrained
from .constraint import Constraint, regex
from .decoder import Decoder, DecoderConfig
from .language_model import LanguageModel, Prompt, PromptError, State
from .linear_gaussian import LinearGaussian, Moments, StateSpaceError
from .random_model import random
from .token_distribution import TokenDistribution
from .tokens import Tokenizer


def load(name, dtype="float32") -> LanguageModel:
    """A language model by name, or from a local folder or GGUF file.

    Args:
      name: "smollm2-135m", the path of a Hugging Face folder or of a ``.gguf`` file, or the name of a model on the
        Hugging Face hub such as "Qwen/Qwen2.5-0.5B".
      dtype: of the matrices: "float32" or "bfloat16".

    Raises:
      BorelaxError: the model is unknown, cannot be fetched or read, or is of an unsupported kind.
    """
    pretrained = _load_pretrained(name, dtype)
    return LanguageModel.of(pretrained.decoder, pretrained.tokenizer)
