"""Scripts that measure real vLLM on a GPU host, self-contained beside vLLM and PyTorch.

`make_model` writes weightless model folders, `worker_hooks` gives them working routers and counts
the experts they touch, `step_recorder` writes every scheduler step, `gated_serve` starts vLLM with
its imports already done, `server` launches and stops it, `load` sends exact batches, `measure` runs
the whole queue, `summarise` turns the raw records into evidence.
"""
