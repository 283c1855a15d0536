"""What the weights of a text encoder do not say: its config.json, checked."""
from dataclasses import dataclass

from .config import number, require, whole


@dataclass(frozen=True)
class TextConfig:
    heads: int = 12
    act: str = "quick_gelu"
    eps: float = 1e-5
    width: int = 768                        # D
    layers: int = 12
    length: int = 77                        # M: tokens of a prompt, start and end included
    pooled: int = 0                         # width of the vector that stands for the whole prompt; 0 where there is none
    eos: int = 49407                        # the token whose vector that is

    @classmethod
    def read(cls, c):
        """From a CLIPTextModel's config.json.  Raises CheckpointError for a network that minisd does not know."""
        require("text_encoder", c, hidden_act=("quick_gelu", "gelu"))
        name = "text_encoder"
        return cls(heads=whole(name, c, "num_attention_heads"), act=c.get("hidden_act", "quick_gelu"),
                   eps=number(name, c, "layer_norm_eps", 1e-5), width=whole(name, c, "hidden_size"),
                   layers=whole(name, c, "num_hidden_layers"), length=whole(name, c, "max_position_embeddings", 77),
                   pooled=whole(name, c, "projection_dim") if "CLIPTextModelWithProjection" in str(c.get("architectures")) else 0,
                   eos=49407 if c.get("eos_token_id", 2) == 2 else whole(name, c, "eos_token_id"))   # 2 is wrong in most files

    def counts(self):
        """{path of a list of layers: how many this network has}, to hold a checkpoint against."""
        return {"encoder.layers": self.layers}
