"""Makes tests/data/second_model/, a tiny Qwen3-MoE of unusual shape with random weights, and records the reference's outputs for it.

Usage: python3 tests/reference/make_second_model.py     (needs PyPI's `torch`, `transformers`, `safetensors`; see README.md beside this file)
"""

import json
import math
import pathlib

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "data" / "second_model"
GOLDEN = ROOT / "tests" / "data" / "second_model_golden.json"

# The first generation's keys (num_experts, rope_theta). All that the embedded model has not: odd head counts, a query width that is not the hidden size, experts
# that no power of two divides, dense layers by both rules (0, 2, 4 by the step, 3 by the list), a head of its own, weights that are not normalized.
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "bos_token_id": None,
    "decoder_sparse_step": 2,
    "eos_token_id": [299, 7],
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 80,
    "intermediate_size": 104,
    "max_position_embeddings": 256,
    "max_window_layers": 6,
    "mlp_only_layers": [3],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 36,
    "norm_topk_prob": False,
    "num_attention_heads": 9,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 6,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 50000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 300,
}
PROMPT_LENGTHS = [1, 2, 5, 17, 40, 70]
GREEDY_TOKENS = 24
SEED = 11
ROUTER_GAP_MIN = 0.03
CONFIDENT_MIN = 8


def make_weights():
    """Every tensor by its Hugging Face name. Products keep about unit size."""
    generator = torch.Generator().manual_seed(SEED)
    c = CONFIG
    weights = {}

    def matrix(name, rows, columns, gain=1.0):
        weights[name] = (torch.randn(rows, columns, generator=generator) * gain / math.sqrt(columns)).to(torch.bfloat16)

    def norm(name, size):
        weights[name] = (1.0 + 0.2 * torch.randn(size, generator=generator)).to(torch.bfloat16)

    def feed_forward(prefix, width):
        matrix(prefix + "gate_proj.weight", width, c["hidden_size"], 1.5)
        matrix(prefix + "up_proj.weight", width, c["hidden_size"], 1.5)
        matrix(prefix + "down_proj.weight", c["hidden_size"], width)

    query_width = c["num_attention_heads"] * c["head_dim"]
    kv_width = c["num_key_value_heads"] * c["head_dim"]
    matrix("model.embed_tokens.weight", c["vocab_size"], c["hidden_size"], 2.0 * math.sqrt(c["hidden_size"]))
    for index in range(c["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        norm(layer + "input_layernorm.weight", c["hidden_size"])
        matrix(layer + "self_attn.q_proj.weight", query_width, c["hidden_size"])
        matrix(layer + "self_attn.k_proj.weight", kv_width, c["hidden_size"])
        matrix(layer + "self_attn.v_proj.weight", kv_width, c["hidden_size"])
        matrix(layer + "self_attn.o_proj.weight", c["hidden_size"], query_width)
        norm(layer + "self_attn.q_norm.weight", c["head_dim"])
        norm(layer + "self_attn.k_norm.weight", c["head_dim"])
        norm(layer + "post_attention_layernorm.weight", c["hidden_size"])
        if index in c["mlp_only_layers"] or (index + 1) % c["decoder_sparse_step"] != 0:
            feed_forward(layer + "mlp.", c["intermediate_size"])
        else:
            matrix(layer + "mlp.gate.weight", c["num_experts"], c["hidden_size"], 2.0)
            for expert in range(c["num_experts"]):
                feed_forward(f"{layer}mlp.experts.{expert}.", c["moe_intermediate_size"])
    norm("model.norm.weight", c["hidden_size"])
    # The head leans towards one next token for each token, so that first choices have clear margins as a trained model's have; what the layers add decides the rest.
    embeddings = weights["model.embed_tokens.weight"].float()
    follower = (7 * torch.arange(c["vocab_size"]) + 3) % c["vocab_size"]
    head = torch.randn(c["vocab_size"], c["hidden_size"], generator=generator)
    head[follower] += 0.5 * embeddings
    weights["lm_head.weight"] = (head * 1.5 / math.sqrt(c["hidden_size"])).to(torch.bfloat16)
    return weights


def write_folder(weights):
    """Two shards with an index, cut in the middle of a layer."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    names = list(weights)
    cut = names.index("model.layers.1.mlp.experts.4.up_proj.weight")
    weight_map = {}
    for number, part in enumerate([names[:cut], names[cut:]], start=1):
        file_name = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, FOLDER / file_name, metadata={"format": "pt"})
        (FOLDER / file_name).chmod(0o644)  # the library writes files that only their owner can read
        weight_map.update({name: file_name for name in part})
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (FOLDER / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def load(dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=dtype, attn_implementation="eager", experts_implementation="eager")
    return model.eval()


@torch.no_grad()
def router_gaps(model, sequences):
    """For each sequence of a batch the smallest gap, over tokens and layers, between the router's logits of the last expert chosen and the first not chosen."""
    gaps = []
    batch = torch.tensor(sequences)

    def record(module, inputs):
        logits = torch.sort(inputs[0].reshape(*batch.shape, CONFIG["hidden_size"]) @ module.weight.T, dim=-1, descending=True).values
        chosen = CONFIG["num_experts_per_tok"]
        gaps.append((logits[..., chosen - 1] - logits[..., chosen]).amin(dim=1))

    hooks = [layer.mlp.gate.register_forward_pre_hook(record) for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    model(batch)
    for hook in hooks:
        hook.remove()
    assert len(gaps) == 2, "layers 1 and 5 have experts"
    return torch.minimum(*gaps).tolist()


@torch.no_grad()
def greedy(model, prompt):
    """Continuation and the logit gap between first and second choice. The end tokens do not end it."""
    ids = list(prompt)
    margins = []
    for _ in range(GREEDY_TOKENS):
        logits = model(torch.tensor([ids])).logits[0, -1].float()
        top = torch.topk(logits, 2)
        margins.append(round(float(top.values[0] - top.values[1]), 4))
        ids.append(int(top.indices[0]))
    return ids[len(prompt):], margins


@torch.no_grad()
def log_probabilities(model, prompt, continuation):
    """Teacher-forced: row t predicts token t of the continuation."""
    logits = model(torch.tensor([prompt + continuation])).logits[0].float()
    rows = logits[len(prompt) - 1:len(prompt) - 1 + len(continuation)]
    return torch.log_softmax(rows, dim=-1)


def make_case(exact, rounded, prompt):
    continuation, margins = greedy(exact, prompt)
    expected = log_probabilities(exact, prompt, continuation)
    top = torch.topk(expected, 10, dim=-1)
    error = (log_probabilities(rounded, prompt, continuation).gather(1, top.indices) - top.values).abs()
    confident = next((index for index, margin in enumerate(margins) if margin <= 0.25), len(margins))
    return {
        "prompt_token_ids": prompt,
        "greedy_token_ids": continuation,
        "greedy_margin": margins,
        "confident_tokens": confident,
        "router_gap": round(router_gaps(exact, [prompt + continuation])[0], 4),
        "top10_ids": top.indices.tolist(),
        "top10_logprobs": [[round(value, 5) for value in row] for row in top.values.tolist()],
        "reference_bf16_error": {"mean_abs": round(float(error.mean()), 6), "max_abs": round(float(error.max()), 6)},
    }


def find_case(exact, rounded, length, generator):
    """The first random prompt whose choices of experts are all clear. Where one hangs on the last bits, two correct implementations differ by a whole expert,
    and the comparison would measure luck."""
    for _ in range(200):
        prompts = torch.randint(0, CONFIG["vocab_size"], (64, length), generator=generator).tolist()
        # The prompts alone first, all at once: it is cheap, and rejects most.
        for prompt, gap in zip(prompts, router_gaps(exact, prompts)):
            if gap < ROUTER_GAP_MIN:
                continue
            case = make_case(exact, rounded, prompt)
            if case["router_gap"] >= ROUTER_GAP_MIN and case["confident_tokens"] >= CONFIDENT_MIN:
                return case
            print(f"rejected: {length} tokens, router gap {case['router_gap']}, {case['confident_tokens']} confident tokens", flush=True)
    raise RuntimeError(f"no prompt of {length} tokens has clear choices: change SEED")


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    write_folder(make_weights())
    exact = load(torch.float32)
    rounded = load(torch.bfloat16)
    generator = torch.Generator().manual_seed(SEED + 1)
    about = (f"Reference outputs of transformers {transformers.__version__} for tests/data/second_model. Fields as in tiny_moe_golden.json: greedy_* and top10_* are float32 "
             "activations over the bf16 weights; top10_* are log probabilities, teacher-forced over greedy_token_ids (row t predicts token t). reference_bf16_error: the same "
             "reference run in bf16 against float32, over the top10 entries. greedy_margin: logit gap between first and second choice. confident_tokens: how many tokens come "
             "before the first gap of 0.25 or less. router_gap: the smallest difference of router logits that a choice of experts hangs on. Made by tests/reference/make_second_model.py.")
    cases = [find_case(exact, rounded, length, generator) for length in PROMPT_LENGTHS]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    GOLDEN.write_text('{"about": ' + json.dumps(about) + ',\n"cases": [\n' + lines + "\n]}\n", encoding="utf-8")
    for case in cases:
        print(len(case["prompt_token_ids"]), case["greedy_token_ids"], min(case["greedy_margin"]), case["confident_tokens"], case["router_gap"], case["reference_bf16_error"])


if __name__ == "__main__":
    main()
