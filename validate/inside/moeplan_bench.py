"""Run vLLM's own serving benchmark many times in one process.

    python moeplan_bench.py CONTROL_FD

One JSON line on standard input for each run: {"argv": [...]}, the options of `vllm bench serve`.
One JSON line on CONTROL_FD for each answer: {"ready": true} once the benchmark is imported (it
takes half a minute on a slow machine), then {"ok": true} or {"ok": false, "error": "..."}. The
benchmark's own output goes to standard output; results go where its options say.
"""

import json
import os
import sys
import traceback


def main() -> None:
    """Import the benchmark, then serve runs until standard input ends."""
    control = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    from vllm.benchmarks import serve

    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:  # before the module was split
        from vllm.utils import FlexibleArgumentParser
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    control.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        control.write(json.dumps(run(serve, parser, json.loads(line)["argv"])) + "\n")


def run(serve, parser, argv):
    """One benchmark run; errors become an answer, whatever they are."""
    try:
        options = parser.parse_args(argv)
        options.subparser = "bench"
        serve.main(options)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {"ok": True}


if __name__ == "__main__":
    main()
