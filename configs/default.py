"""Every key that passk_jax reads, with its unit or reason. Other configs start from this one."""

from ml_collections import config_dict


def optional(default, kind):
    """Returns a field for a key that may also be `None`: off, or what the key's comment says."""
    field = config_dict.placeholder(kind)
    field.set(default)
    return field


def _split_over(embed) -> config_dict.ConfigDict:
    """Maps array axes to the mesh axes that split them: one, several as a tuple, or None."""
    axes = config_dict.ConfigDict()
    axes.vocab = optional("model", object)  # vocabulary: rows of the embedding, logits
    axes.embed = optional(embed, object)  # model width, in parameters
    axes.heads = optional("model", object)  # query heads
    axes.kv_heads = optional("model", object)  # repeated if they are fewer than the mesh axis
    axes.mlp = optional("model", object)  # feed-forward width
    axes.problems = optional(("data", "fsdp"), object)  # problems of a batch
    axes.samples = optional(None, object)  # samples of each problem
    axes.features = optional(None, object)  # model width, in activations
    return axes


def get_config() -> config_dict.ConfigDict:
    """Returns the default job: a byte-level Gemma 2 of one million parameters on arithmetic."""
    config = config_dict.ConfigDict()
    config.seed = 0  # the seed of all randomness: initial parameters, order of problems, samples
    config.steps = 200  # training steps
    config.prompts_per_step = 32  # P: problems per step; mesh.data x mesh.fsdp must divide it
    config.samples_per_prompt = 16  # n: completions of each problem, at least 2
    config.eval_every_steps = 50  # held-out evaluation, also before the first step and at the end
    config.checkpoint_every_steps = 50  # of the warm start and of training
    config.checkpoints_to_keep = 3  # the latest ones; more than 1, in case one is damaged
    # A held-out figure, such as "eval/pass@16_n16": each evaluation then saves a checkpoint, and
    # the one with the highest value is kept beside the latest ones. None: off.
    config.keep_best = optional(None, str)
    # Training ends early after so many steps in which no training problem was solved for the first
    # time (PKPO takes 1000). None: off.
    config.stop_when_flat = optional(None, int)
    # The k of the figures pass@k, distinct@k and majority@k, rising, such as PKPO's (1, 2, 4, 8,
    # 12, 16). Each is at most the n of training or of evaluation, and left out where n is smaller.
    # None: 1, 2, 4, 8, 16.
    config.figure_ks = optional(None, object)
    # Every so many steps the cosine of the step's gradient with that of pass@1 is a figure, for the
    # time of another update or a little more, and memory for two gradients. None: never.
    config.gradient_cosine_every_steps = optional(None, int)
    # 1: a step's batch is sampled while the one before is scored and the devices would wait, by the
    # policy before that one's update. It needs objective.importance_cap, or clip_low and clip_high.
    # 0: one after the other.
    config.pipeline = 0
    config.log_samples_every_steps = 10  # how often training completions go to samples.jsonl
    config.log_samples_problems = 2  # how many problems' completions are written each time

    # A step whose loss or gradient is not finite changes nothing. So many in a row end the run.
    config.max_skipped_steps = 3

    # The folder of the published data sets. None: the environment variable PASSK_DATA names it.
    config.data_dir = optional(None, str)

    # A file written by `python -m passk_jax.difficulty`: training uses only the problems in it.
    config.keep_problems = optional(None, str)

    # True leaves out problems whose prompt (or, with a warm start, worked example) is longer than
    # the limits in `sampling`. False: such a problem is an error.
    config.drop_long_problems = False

    # The order of training problems. "epochs": each problem once per epoch. "prioritized": drawn in
    # proportion to 1 - the solve rate of the problem's last group (Kimi k1.5, arXiv 2501.12599).
    config.order = "epochs"

    # DAPO's dynamic sampling (arXiv 2503.14476): groups with equal rewards are replaced by groups
    # of further batches. This is the largest number of batches sampled per step. None: off.
    config.dynamic_sampling_batches = optional(None, int)  # at least 2

    # What is asked, and how answers are scored.
    config.task = config_dict.ConfigDict()
    # docs/tasks explains all; another task has other options. "module:Class" is one of your own.
    config.task.name = "arithmetic"
    config.task.options = config_dict.ConfigDict()  # documented in docs/tasks
    config.task.options.max_n = 16  # the largest operand of "What is a*b + c*d?"
    config.task.options.num_train = 5000  # problems in the train split
    config.task.options.num_validation = 500  # problems in the validation split
    config.task.options.num_test = 500  # problems in the test split
    config.task.options.seed = 0  # only of the splits, so runs with any `seed` share a test set
    config.task.options.worked_example = "steps"  # "12+30=42"; or "answer": "42"

    # Own rewards (docs/tasks/your_own.md): "module:function", or a tuple of several, where "task"
    # is the task's own reward. None: the task's own alone.
    config.task.reward = optional(None, object)
    config.task.reward_weights = config_dict.ConfigDict()  # by a reward's name; others have 1
    # The limits of a call of an own reward's function.
    config.task.reward_limits = config_dict.ConfigDict()
    config.task.reward_limits.time_limit_s = 10.0  # seconds of one call
    config.task.reward_limits.concurrency = 32  # calls of an `async def` that wait at once
    config.task.reward_limits.retries = 3  # of an `async def`, after 1, 2, 4, ... s, at most 30
    config.task.reward_limits.max_lost = 0.25  # share of a batch that may fail; more ends the run

    # From text to token ids.
    config.tokenizer = config_dict.ConfigDict()
    # "byte", "sentencepiece" or "huggingface". None: that of `init_from`'s folder, else "byte".
    config.tokenizer.name = optional(None, str)
    config.tokenizer.path = optional(None, str)  # tokenizer.model, or tokenizer.json or its folder

    # What the tokenizer's own chat template is given, if task.options.template is "chat".
    config.chat = config_dict.ConfigDict()
    config.chat.system = optional(None, str)  # the system prompt; None: none, or the template's own
    config.chat.thinking = optional(None, bool)  # of Qwen 3's; None: the template decides
    config.chat.date = "2024-07-26"  # "today", for templates such as Llama 3.2's; always the same

    # The model and its initial parameters: a folder of Hugging Face, of the gemma package or of
    # another run, or hf://org/name[@revision] at Hugging Face. None: random. A LoRA run reads this
    # folder again whenever it resumes.
    config.init_from = optional(None, str)

    # LoRA (arXiv 2106.09685): alpha / rank times the product of two narrow matrices is added to
    # every matrix of the layers, and only these are trained. None: train all parameters.
    config.lora = config_dict.ConfigDict()
    config.lora.rank = optional(None, int)  # at least 1
    config.lora.alpha = 16.0  # above 0

    # The model. None: as the checkpoint that `init_from` names says; a key that is set must agree
    # with it. Without `init_from`, None is as in the model that `policy.model` names.
    config.policy = config_dict.ConfigDict()
    # A published model, such as "gemma2_2b" (all are in `policy.config`). None: one of a million
    # parameters, with the vocabulary of its tokenizer. With `init_from` this is only checked.
    config.policy.model = optional(None, str)
    config.policy.vocab_size = optional(None, int)  # rows of the embedding
    config.policy.embed_dim = optional(None, int)  # model width
    config.policy.hidden_dim = optional(None, int)  # feed-forward width
    config.policy.num_layers = optional(None, int)  # layers
    config.policy.num_heads = optional(None, int)  # query heads
    config.policy.num_kv_heads = optional(None, int)  # of keys and values; must divide num_heads
    config.policy.head_dim = optional(None, int)  # width of one head
    config.policy.sliding_window = optional(None, int)  # tokens of local layers; 0: all are global
    config.policy.layer_pattern = optional(None, object)  # such as ("local", "global"), repeated
    config.policy.query_scale = optional(None, float)  # 0: head_dim to the power -1/2
    config.policy.attention_softcap = optional(None, float)  # 0: no cap
    config.policy.final_softcap = optional(None, float)  # of the logits; 0: no cap
    config.policy.rope_base = optional(None, float)  # of the rotary embeddings
    config.policy.rope_scaling = optional(None, object)  # a dict of RopeScaling; factor 1: none
    config.policy.local_rope_base = optional(None, float)  # of local layers; 0: as the global ones
    config.policy.qk_norm = optional(None, bool)  # a norm of each head's query and key
    config.policy.qkv_bias = optional(None, bool)  # queries, keys and values have a bias
    config.policy.activation = optional(None, str)  # "gelu" or "silu"
    config.policy.scale_embedding = optional(None, bool)  # by the square root of embed_dim
    config.policy.tied_head = optional(None, bool)  # the output matrix is the embedding
    config.policy.post_norms = optional(None, bool)  # norms also after attention and feed-forward
    config.policy.norm_offset = optional(None, float)  # added to a norm's stored weights
    config.policy.norm_eps = optional(None, float)  # added to the mean square in norms
    # The rest of the section is the run's.
    config.policy.dtype = "float32"  # of computations; "bfloat16" on TPU and GPU
    # How trained parameters are stored. "bfloat16" saves memory; its updates are rounded
    # stochastically. With LoRA, the frozen parameters are stored in `dtype`.
    config.policy.param_dtype = "float32"
    # What the backward pass computes again: None (nothing), "dots" (all but matrix products) or
    # "full" (all). "dots" is the fastest on a CPU.
    config.policy.remat = optional("dots", str)
    # "reference" works anywhere. "splash": Pallas kernels for updates and prompts, only on TPU.
    config.policy.attention = "reference"

    # How completions are drawn, and how long they may be.
    config.sampling = config_dict.ConfigDict()
    config.sampling.temperature = 1.0  # above 0; the trained policy has the same temperature
    config.sampling.top_k = optional(None, int)  # sample from the k most likely tokens; None: all
    config.sampling.top_p = optional(None, float)  # nucleus sampling; None: off
    # Texts that end a completion, such as ("\nclass", "\nQuestion:") for a base model. The task is
    # given what is before; the policy is trained up to the token that completes one. None: none.
    config.sampling.stop_strings = optional(None, object)
    config.sampling.max_prompt_tokens = 24  # prompts are left-padded to it; longer is an error
    config.sampling.max_response_tokens = 12  # with the end of sequence; longer ones are cut off
    # Rising lengths below these two limits, such as (256, 512). A batch is padded to the smallest
    # one that fits, and each length that occurs is compiled once. None: pad to the limit.
    config.sampling.prompt_buckets = optional(None, object)  # tokens of prompts
    config.sampling.response_buckets = optional(None, object)  # tokens of completions
    # Whether the sampler's layers are compiled one by one. That is faster on a CPU, but compiling
    # many layers takes longer, and their weights are kept twice while it samples. None: on CPUs.
    config.sampling.unroll_layers = optional(None, bool)
    # What is rounded to 8 bits while completions are drawn, in evaluations too: ("weights",),
    # ("caches",) (keys and values) or both. An accelerator then reads half as much. The samples are
    # of a slightly different policy; objective.importance_cap corrects for that. None: nothing.
    config.sampling.int8 = optional(None, object)

    # The estimator turns a group's rewards into weights. Name and k may be schedules ((first step,
    # value), ...), such as k = ((0, 8), (1500, 1)), with steps counted from 0.
    config.estimator = config_dict.ConfigDict()
    # A name in `transforms.ESTIMATORS`, or a function of yours: "surrogate:module:function" (of the
    # success rate) or "estimator:module:function" (of the rewards). It may take k, gamma and
    # coefficient.
    config.estimator.name = optional("sloo_minus_one", object)
    config.estimator.k = optional(8, object)  # of pass@k; None if the estimator takes no k
    # Parameters of some estimators (`python -m passk_jax.transforms` lists them). None: default.
    # pkr: in its weight gamma (1 - rate)^(gamma-1); or a schedule, like k.
    config.estimator.gamma = optional(None, object)
    # pkr: "grpo", "reinforce" or "rft"; biased_scaling: "grpo" or "rloo".
    config.estimator.base = optional(None, str)
    # entropy_regularised: of the entropy; rs_grpo: of the reward; w_reinforce: of a success.
    config.estimator.coefficient = optional(None, float)
    config.estimator.shares = optional(None, object)  # mixture: of k = 1, 2, ..., as (0.5, 0, 0.5)
    config.estimator.max_solve_rate = optional(None, float)  # without_easy: above it weights are 0
    # sloo_posterior, pass_at_any_k: successes that the prior of the rate is worth; edas: what rare
    # wrong answers gain.
    config.estimator.alpha = optional(None, float)
    # The same: failures that the prior is worth; edas: what one wrong answer alone costs.
    config.estimator.beta = optional(None, float)
    config.estimator.kappa = optional(None, float)  # edas: no weight changes by more than 1/kappa
    config.estimator.quantile = optional(None, float)  # qae: the share of its baseline
    # They remember a problem's earlier samples, each of which counts this to the power of its age
    # in steps. 1: all count the same; 0: no memory.
    config.estimator.history_decay = 0.98
    config.estimator.num_sets = optional(None, int)  # bootstrap: sets drawn for each problem
    config.estimator.noise_share = optional(None, float)  # share of failures rewarded as successes
    # True gives completions that were cut off at max_response_tokens weight 0 (DAPO's overlong
    # filtering).
    config.estimator.mask_truncated = False
    config.estimator.truncated_penalty = optional(None, float)  # subtracted from their reward

    # The loss, apart from the advantages. `learner.objective` documents each key.
    config.objective = config_dict.ConfigDict()
    config.objective.epochs = 1  # how often each sample is used
    config.objective.minibatches = 1  # updates per epoch; must divide prompts_per_step
    config.objective.clip_low = optional(None, float)  # PPO's clipping, for example 0.2
    config.objective.clip_high = optional(None, float)  # its upper bound, for example DAPO's 0.28
    config.objective.clip_dual = optional(None, float)  # dual-clip PPO's, for example 3.0
    # How token losses are averaged. Also "seq-mean-token-mean" (GRPO), "token-mean" (DAPO).
    config.objective.aggregation = "seq-mean-token-sum"
    config.objective.importance_cap = optional(None, float)  # of update / sampler, for example 2.0
    # The weight of the KL divergence to the policy that training began with, a mean over response
    # tokens. None: no such term, and no copy of the initial parameters.
    config.objective.kl_coefficient = optional(None, float)
    config.objective.kl_estimator = "k3"  # or "k1"
    config.objective.entropy_coefficient = optional(None, float)  # of the mean entropy per token

    # How the parameters follow the gradient.
    config.optimizer = config_dict.ConfigDict()
    config.optimizer.name = "adamw"  # or "adafactor" (almost no state), "sgd" (no state)
    config.optimizer.learning_rate = optional(1e-4, object)  # or a schedule, like estimator.k
    config.optimizer.warmup_steps = 10  # linear, starting at learning_rate / warmup_steps
    config.optimizer.decay = "constant"  # after the warm-up; or "cosine", "linear"
    config.optimizer.end = 0.0  # the share of the learning rate that decay leaves at the run's end
    config.optimizer.clip_gradient_norm = optional(1.0, float)  # of the global norm; None: off
    config.optimizer.b1 = 0.9  # decay of the first moment; this and the next two: only for adamw
    config.optimizer.b2 = 0.95  # decay of the second moment
    config.optimizer.eps = 1e-8  # added to the second moment's square root
    config.optimizer.weight_decay = 0.0  # times the learning rate; not for sgd, norms and biases
    config.optimizer.moment_dtype = "float32"  # or "bfloat16", rounded stochastically

    # Splits the P x n samples of an update into micro-batches, for batches whose activations do not
    # fit in memory. The result is the same. None: all samples at once, but on a CPU as many as its
    # cache holds, which is faster.
    config.micro_batch = config_dict.ConfigDict()
    config.micro_batch.problems = optional(None, int)  # also worked examples; must divide P
    config.micro_batch.samples = optional(None, int)  # of each problem; must divide n

    # Whether updates leave out the samples whose advantage is 0: the gradient is the same, and with
    # the estimators of pass@k a step is up to twice as fast. A step without any weight then updates
    # nothing. None: where it is exact (no KL or entropy term) and the batch is not tiny.
    config.update_weighted_only = optional(None, bool)
    # Whether an update leaves out the padding behind completions and worked examples, in all but
    # attention: the gradient is the same, and each size of what is left is compiled. None: on a
    # CPU, where it was measured to be faster, if the batch is not tiny.
    config.update_unpadded = optional(None, bool)
    # Whether an update compiles the layers one by one, and keeps all they compute, whatever
    # policy.remat is. None: on a CPU, where that is faster, if the model has at most 8 layers.
    config.update_unroll_layers = optional(None, bool)

    # Supervised training on worked examples, before the policy gradient.
    config.warm_start = config_dict.ConfigDict()
    config.warm_start.steps = 400  # 0: no warm start
    config.warm_start.batch_size = 64  # worked examples per step
    config.warm_start.learning_rate = 1e-3  # `optimizer` has the other settings
    # Whose train split has the examples.
    config.warm_start.task = config_dict.ConfigDict()
    config.warm_start.task.name = optional(None, str)  # None: that of the task that is trained
    config.warm_start.task.options = config_dict.ConfigDict()  # as those of config.task

    # Held-out evaluation during training; `python -m passk_jax.evaluate` evaluates afterwards.
    config.evaluation = config_dict.ConfigDict()
    config.evaluation.split = "validation"  # or "test"
    config.evaluation.num_problems = optional(None, int)  # the first ones of the split; None: all
    config.evaluation.samples_per_prompt = 16  # completions of each problem
    config.evaluation.prompts_per_batch = 100  # problems sampled at once; the mesh must divide it
    config.evaluation.temperature = 1.0  # 0: greedy
    config.evaluation.log_samples_problems = 16  # problems whose samples go to samples.jsonl

    # The number of devices along each mesh axis. -1: all remaining devices.
    config.mesh = config_dict.ConfigDict()
    config.mesh.data = -1  # splits problems
    config.mesh.fsdp = 1  # splits problems, and parameters in training
    config.mesh.model = 1  # splits heads, feed-forward width and vocabulary
    # With config.pipeline so many devices, a share of every host's, draw the next batch while the
    # others, which are the mesh above, score and train. None: all devices do both in turn.
    config.mesh.sampling = optional(None, int)

    # Which mesh axes split each axis of an array. Once per step the parameters are copied to the
    # layout for sampling, because each sampled token needs all of them.
    config.sharding = config_dict.ConfigDict()
    config.sharding.training = _split_over(embed="fsdp")  # of the update
    config.sharding.sampling = _split_over(embed=None)  # while completions are drawn

    # Tokens whose logits are in memory at once in an update, on each device with its own tokens:
    # chunk x vocabulary x 4 bytes, the vocabulary split over mesh.model. Take some hundreds for a
    # vocabulary of 256,128. Fewer tokens only cost time.
    config.logprob_chunk_tokens = 8192
    # Where the figures go beside metrics.jsonl: "tensorboard" (files in workdir/tensorboard),
    # "wandb", "mlflow", "trackio". None: nowhere.
    config.writers = optional(("tensorboard",), object)
    # Whether report.html is written at each evaluation, by a process of the lowest priority. It is
    # always written at the end.
    config.report_at_evaluations = True
    # (start, stop): steps start, ..., stop - 1, counted from 0, are traced into workdir/profile.
    config.profile_steps = optional(None, object)
    # The folder of compiled programs, which a command that starts again need not compile. The
    # environment's JAX_COMPILATION_CACHE_DIR wins. None: no such folder.
    config.compilation_cache = optional("~/.cache/passk_jax", str)
    return config.lock()  # a misspelt key in another config is an error, not a new key
