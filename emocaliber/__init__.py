"""EmoCaliber: visual emotion comprehension with a confidence that can be checked.

What inference, data and training share, a module a noun:

    taxonomy      the tasks of VECBench, their groups and labels, and when a written label is one of them
    prompts       what the model is asked
    response      the grammar of an answer: written, read, and as a regular expression
    stated        the probabilities that an answer states
    records       rows of data and predictions: checked, read, written
    scoring       whether a row's answer is right
    confidences   every confidence that a row holds, and what most of its samples say
    reward        the rewards of stage 3
    reward_log    the log of its rollouts, and the signs of collapse in it
    metrics       arrays in, numbers out: accuracy, calibration, selective prediction, intervals
    report        tables, logs, figures and the page of an evaluation
    mini          the procedural world whose true label distribution is known
    images        image files: size, opening, tokens
    jsonl         files of JSON lines that survive being killed
    chat_server   many questions at a time to an OpenAI-compatible server
    command_line  how every command reads its arguments and how it ends
    environment   what setup_env.sh asks: which requirements fit this machine, and whether they are installed
    provenance    the commit, versions and sums of files behind a result
    supervise     a script that ends with all its processes

Importing it costs nothing: no numpy, no torch, no framework.
"""

__version__ = "0.1.0"
