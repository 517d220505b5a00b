"""Every key that passk_jax reads, with its unit or reason. Other configs start from this one."""

from ml_collections import config_dict


def optional(default, kind):
    """A key that may also be `None`, the one spelling of "off"."""
    field = config_dict.placeholder(kind)
    field.set(default)
    return field


def _split_over(embed) -> config_dict.ConfigDict:
    """For each axis of arrays one of the mesh's, several such as ("fsdp", "data"), or None."""
    axes = config_dict.ConfigDict()
    axes.vocab = optional("model", object)  # rows of the embedding, logits
    axes.embed = optional(embed, object)  # model width, of parameters
    axes.heads = optional("model", object)
    axes.kv_heads = optional("model", object)  # repeated where they are fewer than the mesh's axis
    axes.mlp = optional("model", object)  # feed-forward width
    axes.problems = optional(("data", "fsdp"), object)
    axes.samples = optional(None, object)  # of each problem
    axes.features = optional(None, object)  # model width, of activations
    return axes


def get_config() -> config_dict.ConfigDict:
    """Returns the default job: a byte-level Gemma 2 of one million parameters on arithmetic."""
    config = config_dict.ConfigDict()
    config.seed = 0  # of everything random: parameters, order of problems, samples
    config.steps = 200  # policy-gradient updates
    config.prompts_per_step = 32  # P: problems in a batch; the mesh's data x fsdp must divide it
    config.samples_per_prompt = 16  # n: completions for each problem, at least 2
    config.eval_every_steps = 50  # held-out evaluation; also before the first and after the last
    config.checkpoint_every_steps = 50  # of the warm start and of training
    config.checkpoints_to_keep = 3  # the latest; more than one, so that a damaged one has a former
    config.log_samples_every_steps = 10  # completions written to samples.jsonl
    config.log_samples_problems = 2  # how many problems' groups each time

    # The folder of the published data sets; None is the one that PASSK_DATA names.
    config.data_dir = optional(None, str)

    # A file of `python -m passk_jax.difficulty`: only the problems it kept are trained on.
    config.keep_problems = optional(None, str)

    # Whether problems whose prompt (or, with a warm start, worked example) is longer than what
    # `sampling` allows are left out; otherwise one of them is an error.
    config.drop_long_problems = False

    # Which training problems come next: "epochs", each once in every epoch, or "prioritized", in
    # proportion to 1 - the solve rate of the problem's last group (Kimi k1.5, arXiv 2501.12599).
    config.order = "epochs"

    # DAPO's dynamic sampling (arXiv 2503.14476): groups of equal rewards are replaced by those of
    # further batches, until none is left or so many batches were sampled for the step. None: off.
    config.dynamic_sampling_batches = optional(None, int)  # at least 2

    # What is asked. Options are the task's own: see `passk_jax/tasks/<name>.py`.
    config.task = config_dict.ConfigDict()
    config.task.name = "arithmetic"
    config.task.options = config_dict.ConfigDict()
    config.task.options.max_n = 16  # the largest operand of "What is a*b + c*d?"
    config.task.options.num_train = 5000
    config.task.options.num_validation = 500
    config.task.options.num_test = 500
    config.task.options.seed = 0  # of the splits alone: runs of all seeds share a test set
    config.task.options.worked_example = "steps"  # "12+30=42", or "answer" for "42"

    config.tokenizer = config_dict.ConfigDict()
    config.tokenizer.name = "byte"  # or "sentencepiece", "huggingface"
    config.tokenizer.path = optional(None, str)  # tokenizer.model, or tokenizer.json or its folder

    # The parameters to begin with: a folder of the gemma package, of Hugging Face or of a run. None
    # for random ones. LoRA reads them again whenever it goes on.
    config.init_from = optional(None, str)

    # LoRA (arXiv 2106.09685): to every matrix of the layers alpha / rank times the product of two
    # narrow ones is added, and these alone are trained. None: all parameters are trained.
    config.lora = config_dict.ConfigDict()
    config.lora.rank = optional(None, int)  # at least 1
    config.lora.alpha = 16.0  # above 0

    # The decoder's sizes and constants. The published ones are in `policy.config`.
    config.policy = config_dict.ConfigDict()
    config.policy.vocab_size = optional(None, int)  # rows of the embedding; None: the tokenizer's
    config.policy.embed_dim = 128
    config.policy.hidden_dim = 512  # of the feed-forward
    config.policy.num_layers = 4  # even: local and global layers alternate
    config.policy.num_heads = 4
    config.policy.num_kv_heads = 2
    config.policy.head_dim = 32
    config.policy.sliding_window = optional(64, int)  # positions that a local layer sees; or None
    config.policy.query_scale = optional(None, float)  # None: head_dim to the power -1/2
    config.policy.attention_softcap = optional(50.0, float)
    config.policy.final_softcap = optional(30.0, float)
    config.policy.rope_base = 10_000.0
    config.policy.rope_scaling = optional(None, object)  # Llama 3.1's: a dict of RopeScaling
    config.policy.qkv_bias = False  # Qwen 2.5's; these four and the norms are Gemma 2's here
    config.policy.activation = "gelu"
    config.policy.scale_embedding = True
    config.policy.tied_head = True
    config.policy.post_norms = True
    config.policy.norm_offset = 1.0
    config.policy.norm_eps = 1e-6
    config.policy.dtype = "float32"  # of the arithmetic; "bfloat16" on TPU and GPU
    # As what is trained is stored; "bfloat16", with updates rounded stochastically, for small
    # memories. What LoRA adds to is stored in the arithmetic's dtype.
    config.policy.param_dtype = "float32"
    # What is computed again in the backward pass: None (nothing), "dots" (all but the products),
    # "full". "dots" is the fastest on a CPU.
    config.policy.remat = optional("dots", str)
    # "splash": the update and the prompts attend by Pallas kernels, on TPU; "reference" anywhere.
    config.policy.attention = "reference"

    config.sampling = config_dict.ConfigDict()
    config.sampling.temperature = 1.0  # also of the policy that is trained, so above 0
    config.sampling.top_k = optional(None, int)
    config.sampling.top_p = optional(None, float)
    config.sampling.max_prompt_tokens = 24  # left-padded to it; a longer prompt is an error
    config.sampling.max_response_tokens = 12  # with the end of sequence; longer ones are cut off
    # Rising lengths below these two, such as (256, 512). A batch is padded to the smallest that it
    # fits in, and each that occurs is compiled once. None: always to the full length.
    config.sampling.prompt_buckets = optional(None, object)
    config.sampling.response_buckets = optional(None, object)

    # From the rewards of a group to its weights: `passk_jax.transforms.ESTIMATORS`, or the place
    # "module:function" of a surrogate reward. The name and k may change in phases ((first step,
    # value), ...), such as k = ((0, 8), (1500, 1)), steps counted from 0.
    config.estimator = config_dict.ConfigDict()
    config.estimator.name = optional("sloo_minus_one", object)
    config.estimator.k = optional(8, object)  # of pass@k; None for an estimator that takes no k
    # What some estimators take beside k, None for their default; `python -m passk_jax.transforms`.
    config.estimator.gamma = optional(None, float)  # pkr: of the weight gamma (1 - rate)^(gamma-1)
    config.estimator.base = optional(None, str)  # pkr: "grpo", "reinforce" or "rft"
    config.estimator.coefficient = optional(None, float)  # entropy_regularised
    config.estimator.max_solve_rate = optional(None, float)  # without_easy: share of successes
    config.estimator.num_sets = optional(None, int)  # bootstrap: sets drawn for each problem
    config.estimator.noise_share = optional(None, float)  # of the failures, rewarded as successes
    # Completions cut off at max_response_tokens: whether they weigh nothing (DAPO's overlong
    # filtering), and what is subtracted from their reward, None for nothing.
    config.estimator.mask_truncated = False
    config.estimator.truncated_penalty = optional(None, float)

    # What an update climbs beside the advantages: `learner.objective` has each key's meaning.
    config.objective = config_dict.ConfigDict()
    config.objective.epochs = 1  # updates with each sample
    config.objective.minibatches = 1  # of problems, in an epoch; must divide prompts_per_step
    config.objective.clip_low = optional(None, float)  # PPO's; 0.2, say
    config.objective.clip_high = optional(None, float)  # DAPO's 0.28
    # Of tokens' losses: or "seq-mean-token-mean" (GRPO), "token-mean" (DAPO).
    config.objective.aggregation = "seq-mean-token-sum"
    config.objective.importance_cap = optional(None, float)  # of update / sampler; 2.0, say
    # Weight of the KL divergence between the policy and the one that training began with, a mean
    # over response tokens. None for no such term, and no copy of those parameters.
    config.objective.kl_coefficient = optional(None, float)
    config.objective.kl_estimator = "k3"  # or "k1"
    config.objective.entropy_coefficient = optional(None, float)  # of the mean entropy of a token

    config.optimizer = config_dict.ConfigDict()
    config.optimizer.name = "adamw"  # or "adafactor", almost without a state; "sgd", without
    config.optimizer.learning_rate = optional(1e-4, object)  # or phases, as estimator.k
    config.optimizer.warmup_steps = 10  # linear, from learning_rate / warmup_steps
    config.optimizer.clip_gradient_norm = optional(1.0, float)  # global norm
    config.optimizer.b1 = 0.9  # adamw's alone, as b2 and eps
    config.optimizer.b2 = 0.95
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.0  # times the learning rate; not sgd's
    config.optimizer.moment_dtype = "float32"  # or "bfloat16", rounded stochastically

    # The update one micro-batch of P x n samples after the other, with the same result: for
    # batches whose activations do not fit. None: all of them at once.
    config.micro_batch = config_dict.ConfigDict()
    config.micro_batch.problems = optional(None, int)  # also of the worked examples; must divide P
    config.micro_batch.samples = optional(None, int)  # of each problem; must divide n

    # Supervised steps on the train split's worked examples, before training; 0 steps for none.
    config.warm_start = config_dict.ConfigDict()
    config.warm_start.steps = 400
    config.warm_start.batch_size = 64  # worked examples
    config.warm_start.learning_rate = 1e-3  # the other optimizer settings are the optimizer's

    # Held-out evaluation during training; `python -m passk_jax.evaluate` does it afterwards.
    config.evaluation = config_dict.ConfigDict()
    config.evaluation.split = "validation"
    config.evaluation.num_problems = optional(None, int)  # the first so many; None for all
    config.evaluation.samples_per_prompt = 16
    config.evaluation.prompts_per_batch = 100  # problems sampled at once; the mesh must divide it
    config.evaluation.temperature = 1.0
    config.evaluation.log_samples_problems = 16  # the first so many's samples to samples.jsonl

    # Devices along each axis; -1 for all that remain.
    config.mesh = config_dict.ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh.model = 1

    # Which axes of the mesh split each axis of an array. Once a step the parameters are laid out
    # for sampling, where every token needs all of them.
    config.sharding = config_dict.ConfigDict()
    config.sharding.training = _split_over(embed="fsdp")
    config.sharding.sampling = _split_over(embed=None)

    # Tokens whose logits are in memory at once in the update, on each device that has tokens of its
    # own: chunk x vocabulary x 4 bytes, the vocabulary split over mesh.model. Some hundreds at a
    # vocabulary of 256,128; fewer only cost time.
    config.logprob_chunk_tokens = 8192
    config.tensorboard = True  # event files in workdir/tensorboard, next to metrics.jsonl
    return config.lock()  # a misspelt key of another config is an error, not a new key
